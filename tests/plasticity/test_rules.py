"""The pool of terms against explicit loops over synapses, how they add up, and the registry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from tsar_jax.errors import UserError
from tsar_jax.plasticity import rules
from tsar_jax.plasticity.rules import (
    POOL,
    TERMS,
    Change,
    Decay,
    Outer,
    Synapses,
    apply_change,
    back_through,
    change,
    find_terms,
    invert_change,
)


def loop(name, w, y_p, y, e_p, e):
    """F0 to F9 of the paper, synapse by synapse: w[i, j] from unit j to unit i."""
    new = np.zeros_like(w)
    out, into = w.shape
    quadratic = sum(y[i] * w[i, j] * e_p[j] for i in range(out) for j in range(into))
    reverse = sum(y_p[j] * w[i, j] * e[i] for i in range(out) for j in range(into))
    for i in range(out):
        for j in range(into):
            new[i, j] = {
                "pseudo_gradient": -e[i] * y_p[j],
                "f1": -y[i] * e_p[j],
                "ehebb": -e[i] * e_p[j],
                "decay": -w[i, j],
                "f4": -e_p[j],
                "f5": -e[i] * sum(y) * y_p[j],
                "f6": -y[i] * quadratic * e_p[j],
                "f7": -e[i] * quadratic * y_p[j],
                "f8": -y[i] * reverse * e_p[j],
                "oja": y[i] * y_p[j] - sum(y[i] * y[k] * w[k, j] for k in range(out)),
            }[name]
    return new


def draw(seed, out=4, into=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in ((out, into), into, out, into, out)]


@functools.partial(jax.jit, static_argnums=0)
def compiled_change(terms, coefficients, synapses):
    return apply_change(synapses.weights, change(terms, coefficients, synapses))


def applied(names, coefficients, arrays):
    """The change alone, of weights that a rule with these terms changes."""
    with jax.enable_x64(True):
        new = compiled_change(find_terms(names), np.asarray(coefficients), Synapses(*arrays))
        return np.asarray(new) - arrays[0]


# Few shapes, because each is compiled.
@settings(max_examples=30, deadline=None)
@given(st.sampled_from([(4, 3), (1, 2)]), st.integers(0, 2**32 - 1))
def test_every_term_is_its_equation_for_every_synapse(shape, seed) -> None:
    arrays = draw(seed, *shape)
    for name in POOL:
        ours, wanted = applied([name], [1.0], arrays), loop(name, *arrays)
        np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-9, err_msg=name)


def test_the_pool_is_the_published_ten_terms() -> None:
    assert len(POOL) == 10
    assert (POOL[0], POOL[2], POOL[3], POOL[9]) == ("pseudo_gradient", "ehebb", "decay", "oja")


def test_terms_add_up_and_those_that_share_a_side_share_a_rank() -> None:
    arrays, coefficients = draw(0), np.random.default_rng(1).normal(size=len(POOL))
    wanted = sum(c * loop(name, *arrays) for c, name in zip(coefficients, POOL, strict=True))
    np.testing.assert_allclose(applied(POOL, coefficients, arrays), wanted, rtol=1e-9, atol=1e-9)
    synapses = Synapses(*(jnp.asarray(a, jnp.float32) for a in arrays))
    changed = change(find_terms(POOL), jnp.asarray(coefficients, jnp.float32), synapses)
    assert len(changed.post) == len(changed.pre) == 3
    assert changed.dense is None


@given(st.integers(0, 2**32 - 1), st.floats(-0.5, 0.5))
@settings(max_examples=20, deadline=None)
def test_a_change_can_be_taken_back(seed, decay) -> None:
    w, y_p, y, e_p, e = (np.float32(array) for array in draw(seed))
    changed = Change((y, e), (y_p, e_p), np.float32(decay))
    there_and_back = jax.jit(lambda w, c: invert_change(apply_change(w, c), c))(w, changed)
    np.testing.assert_allclose(there_and_back, w, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_going_back_through_weights() -> None:
    w, _, y, _, _ = (jnp.asarray(a, jnp.float32) for a in draw(3))

    def outcome(through):
        return jax.grad(lambda w, y: jnp.sin(through(w, y)).sum(), (0, 1))(w, y)

    ours, wanted = outcome(back_through), outcome(lambda w, y: y @ w)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, wanted)


def test_oja_finds_the_principal_subspace_that_scikit_learn_finds() -> None:
    rng = np.random.default_rng(0)
    data = (
        rng.normal(size=(4000, 5))
        * [3, 2, 0.5, 0.3, 0.1]
        @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    )
    terms = find_terms(["oja"])

    def learn(weights, pre):
        zero = jnp.zeros_like(pre), jnp.zeros(2)
        synapses = Synapses(weights, pre, weights @ pre, *zero)
        return apply_change(weights, change(terms, jnp.array([3e-3]), synapses)), None

    weights, _ = jax.lax.scan(learn, jnp.asarray(rng.normal(size=(2, 5)) * 0.1), jnp.asarray(data))
    wanted = PCA(2).fit(data).components_
    np.testing.assert_allclose(weights.T @ weights, wanted.T @ wanted, atol=0.05)


@pytest.fixture
def own_terms(monkeypatch):
    """A copy of the registry, so that what a test adds is gone after it."""
    monkeypatch.setattr(TERMS, "_things", dict(TERMS))


def test_a_term_of_ones_own(own_terms) -> None:
    @rules.term("anti_hebb")
    def anti_hebb(s):
        return Outer(s.post, s.pre, -1.0)

    @rules.term("half_decay_and_matrix")
    def dense(s):
        return -0.5 * s.weights

    arrays = draw(5)
    w, y_p, y, _, _ = arrays
    wanted = -2 * np.outer(y, y_p) - 1.5 * w
    names = ["anti_hebb", "half_decay_and_matrix"]
    np.testing.assert_allclose(applied(names, [2.0, 3.0], arrays), wanted, rtol=1e-9)


def test_a_term_may_be_defined_again_by_its_module_but_not_taken_by_another(own_terms) -> None:
    rules.term("mine")(lambda s: Decay(1.0))
    rules.term("mine")(lambda s: Decay(2.0))
    with pytest.raises(UserError, match="There is a term 'oja' already: choose another name"):
        rules.term("oja")(lambda s: Decay(1.0))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "The rule has no terms: name some of pseudo_gradient, f1"),
        (["oja", "hebb"], "There is no term 'hebb': choose from .*--modules"),
        (["oja", "oja"], r"names a term twice \(oja, oja\)"),
    ],
)
def test_impossible_rules_are_named(names, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        find_terms(names)


def test_a_term_of_the_wrong_shape_is_refused(own_terms) -> None:
    rules.term("crossed")(lambda s: Outer(s.pre, s.post))
    with pytest.raises(AssertionError):
        applied(["crossed"], [1.0], draw(0))
