"""The nine Hebbian rules against explicit loops over synapses, and what bounds the weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tsar_jax.errors import UserError
from tsar_jax.plasticity.hebbian import (
    RULES,
    find_rule,
    hebbian_change,
    hebbian_update,
    multiply_rates,
    normalise,
    without_rate,
)

# A synapse from activity i to activity j; its coefficients follow in the release's order.
SYNAPSE = {
    "A": lambda i, j, a: a * i * j,
    "AD": lambda i, j, a, d: a * i * j + d,
    "AD_lr": lambda i, j, a, d, eta: eta * (a * i * j + d),
    "ABC": lambda i, j, a, b, c: a * i * j + b * i + c * j,
    "ABC_lr": lambda i, j, a, b, c, eta: eta * (a * i * j + b * i + c * j),
    "ABCD": lambda i, j, a, b, c, d: a * i * j + b * i + c * j + d,
    "ABCD_lr": lambda i, j, a, b, c, eta, d: eta * (a * i * j + b * i + c * j + d),
    "ABCD_lr_D_out": lambda i, j, a, b, c, eta, d: eta * (a * i * j + b * i + c * j) + d,
    "ABCD_lr_D_in_and_out": lambda i, j, a, b, c, eta, d, d_out: (
        eta * (a * i * j + b * i + c * j + d) + d_out
    ),
}


# But for roundings, of which a sum of large terms that is nearly 0 has as many as the terms.
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def loop(name, coefficients, pre, post):
    """dw [out, in], synapse by synapse."""
    change = np.zeros((len(post), len(pre)))
    for to in range(len(post)):
        for source in range(len(pre)):
            change[to, source] = SYNAPSE[name](pre[source], post[to], *coefficients[:, to, source])
    return change


def draw(name, seed, out=4, into=3):
    rng = np.random.default_rng(seed)
    shapes = (len(RULES[name].columns), out, into), into, out
    return [rng.normal(size=shape) for shape in shapes]


@functools.partial(jax.jit, static_argnums=0)
def compiled_change(rule, coefficients, pre, post):
    return hebbian_change(rule, coefficients, pre, post)


def changed(name, *arrays):
    with jax.enable_x64(True):
        return np.asarray(compiled_change(RULES[name], *arrays))


def test_the_rules_are_the_published_nine() -> None:
    assert list(RULES) == list(SYNAPSE)


# Few shapes, because each is compiled.
@settings(max_examples=15, deadline=None)
@given(st.sampled_from([(4, 3), (1, 2)]), st.integers(0, 2**32 - 1))
def test_every_rule_is_its_equation_for_every_synapse(shape, seed) -> None:
    for name in RULES:
        drawn = draw(name, seed, *shape)
        wanted = loop(name, *drawn)
        np.testing.assert_allclose(changed(name, *drawn), wanted, **EXACT, err_msg=name)


@pytest.mark.parametrize("name", [name for name in RULES if "eta" in RULES[name].columns])
def test_no_rate_leaves_only_what_is_outside_of_it(name) -> None:
    coefficients, pre, post = draw(name, 0)
    columns = RULES[name].columns
    coefficients[columns.index("eta")] = 0
    outside = {"ABCD_lr_D_out": "D", "ABCD_lr_D_in_and_out": "D_out"}.get(name)
    wanted = coefficients[columns.index(outside)] if outside else np.zeros((4, 3))
    np.testing.assert_array_equal(changed(name, coefficients, pre, post), wanted)


@pytest.mark.parametrize("name", RULES)
def test_a_rate_multiplied_into_the_others_makes_the_same_changes(name) -> None:
    coefficients, pre, post = draw(name, 1)
    with jax.enable_x64(True):
        found = hebbian_change(
            without_rate(RULES[name]), multiply_rates(RULES[name], coefficients), pre, post
        )
    np.testing.assert_allclose(found, loop(name, coefficients, pre, post), **EXACT)
    assert "eta" not in without_rate(RULES[name]).columns


# Without those that are below any normal number, which XLA takes for 0.
ELEMENTS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(np.float32, (3, 2), elements=ELEMENTS))
def test_normalised_weights_are_bounded_and_keep_their_proportions(weights) -> None:
    found = jax.jit(normalise)(weights)
    largest = np.abs(weights).max()
    wanted = weights / np.float64(largest) if largest else weights
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("size", [1, 15, 16, 257, 512, 1000])
def test_the_largest_weight_is_found_wherever_it_is(size) -> None:
    for place in {*range(0, size, 1 + size // 50), size - 1}:
        weights = np.linspace(-1, 1, size, dtype=np.float32)
        weights[place] = -2
        np.testing.assert_allclose(normalise(jnp.asarray(weights)), weights / 2, rtol=1e-6)


def test_weights_that_are_all_zero_stay() -> None:
    np.testing.assert_array_equal(normalise(jnp.zeros((2, 3))), np.zeros((2, 3)))


@pytest.mark.parametrize("normalised", [False, True])
def test_every_layer_changes_by_the_activities_of_the_forward_pass(normalised) -> None:
    rng = np.random.default_rng(1)
    sizes, rule = (3, 4, 2), "ABCD_lr"
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    weights = tuple(rng.normal(size=shape) for shape in shapes)
    coefficients = tuple(rng.normal(size=(5, *shape)) for shape in shapes)
    # Of no network at all: a layer's change must not ask the weights, old or new, for its own.
    activities = tuple(rng.normal(size=size) for size in sizes)
    with jax.enable_x64(True):
        found = hebbian_update(
            RULES[rule], coefficients, weights, activities, normalised=normalised
        )
    for layer, (new, old) in enumerate(zip(found, weights, strict=True)):
        pre, post = activities[layer : layer + 2]
        wanted = old + loop(rule, coefficients[layer], pre, post)
        if normalised:
            wanted = wanted / np.abs(wanted).max()
        np.testing.assert_allclose(new, wanted, **EXACT)


def test_an_unknown_rule_is_named_with_the_known_ones() -> None:
    assert find_rule("AD_lr") is RULES["AD_lr"]
    with pytest.raises(UserError, match="no Hebbian rule 'oja': choose from A, AD, AD_lr, ABC"):
        find_rule("oja")


def test_coefficients_of_another_rule_or_shape_are_refused() -> None:
    coefficients, pre, post = draw("ABCD", 0)
    for rule, refused in (("ABC", coefficients), ("ABCD", coefficients.swapaxes(1, 2))):
        with pytest.raises(AssertionError):
            hebbian_change(RULES[rule], refused, pre, post)
    with pytest.raises(AssertionError):
        hebbian_update(RULES["ABCD"], (coefficients,), (), (pre, post), normalised=False)
