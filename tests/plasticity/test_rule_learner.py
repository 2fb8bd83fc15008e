"""A lifetime under a rule: its gradient three ways, against finite differences, SGD and itself."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from tsar_jax.networks.feedback_network import init_weights, logits
from tsar_jax.plasticity.gradient_learner import gradient_learner
from tsar_jax.plasticity.learner import unroll
from tsar_jax.plasticity.rule_learner import Rule, RuleTheta, layer_sizes, rule_learner
from tsar_jax.plasticity.rules import POOL, find_terms

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZES = (6, 5, 3)
BETA = 3.0
STRATEGIES = ("reconstruct", "rematerialise", "store")


def dense_hebb(s):
    """As a whole matrix, which cannot be taken back."""
    return s.post[:, None] * s.pre[None]


def make(length, sizes=SIZES):
    keys = jax.random.split(jax.random.key(length), 4)
    weights, random = init_weights(keys[0], sizes), init_weights(keys[1], sizes)
    images = jax.random.uniform(keys[2], (length, sizes[0]))
    labels = jax.random.randint(keys[3], (length,), 0, sizes[-1])
    return weights, random, (images, labels)


def coefficients_for(terms, layers=None):
    shape = (len(terms),) if layers is None else (layers, len(terms))
    return 0.02 * jnp.asarray(np.random.default_rng(0).uniform(0.5, 1, shape))


def adapt(rule, coefficients, weights, random, examples, *, remat="reconstruct", segment=25):
    """The weights after a lifetime."""
    learner = rule_learner(rule, layer_sizes(weights))
    theta = RuleTheta(coefficients, random)
    return unroll(learner, theta, weights, examples, remat=remat, segment=segment)[0]


def outcome(coefficients, weights, rule, random, examples, **options):
    """What the lifetime leads to, as one number."""
    adapted = adapt(rule, coefficients, weights, random, examples, **options)
    return sum(jnp.sin(3 * w).sum() for w in adapted)


FEW = ("pseudo_gradient", "decay", "oja")


@pytest.mark.parametrize(
    ("names", "feedback", "extra", "per_layer"),
    [
        (POOL, "fix", (), False),
        (FEW, "sym", (), True),
        (FEW, "sign", (dense_hebb,), False),
        (FEW, "fix", (dense_hebb,), True),
    ],
)
def test_the_gradient_does_not_depend_on_how_weights_come_back(
    names, feedback, extra, per_layer
) -> None:
    with jax.enable_x64(True):
        weights, random, examples = make(11)
        rule = Rule((*find_terms(names), *extra), feedback, BETA)
        coefficients = coefficients_for(rule.terms, len(weights) if per_layer else None)

        def all_ways(coefficients, weights):
            gradient = jax.value_and_grad(outcome, (0, 1))
            return [
                gradient(coefficients, weights, rule, random, examples, remat=remat, segment=4)
                for remat in STRATEGIES
            ]

        first, *others = jax.jit(all_ways)(coefficients, weights)
        assert np.abs(first[1][0]).min() > 1e-6
        for other in others:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8), first, other)


@pytest.mark.parametrize("segment", [1, 2, 25])
def test_segments_change_nothing(segment) -> None:
    with jax.enable_x64(True):
        weights, random, examples = make(5)
        rule = Rule(find_terms(POOL), "fix", BETA)
        coefficients = coefficients_for(rule.terms)
        gradient = jax.grad(outcome)(coefficients, weights, rule, random, examples, segment=segment)
        wanted = jax.grad(outcome)(coefficients, weights, rule, random, examples, remat="store")
        np.testing.assert_allclose(gradient, wanted, rtol=1e-9)


def test_the_gradient_against_finite_differences() -> None:
    with jax.enable_x64(True):
        weights, random, examples = make(7)
        rule = Rule(find_terms(POOL), "fix", BETA)
        function = jax.jit(functools.partial(outcome, rule=rule, random=random, examples=examples))
        check_grads(
            function, (coefficients_for(rule.terms), weights), order=1, modes=["rev"], rtol=1e-6
        )


def test_a_strong_decay_stays_accurate_in_float32() -> None:
    """Taken back over all 100 updates, weights that halve each time would be lost."""
    weights, random, examples = make(100)
    rule = Rule(find_terms(["pseudo_gradient", "decay"]), "fix", BETA)
    coefficients = jnp.array([0.05, 0.3])
    ways = [
        jax.jit(
            jax.grad(functools.partial(outcome, rule=rule, random=random, examples=examples, **way))
        )(coefficients, weights)
        for way in ({"segment": 10}, {"remat": "store"})
    ]
    np.testing.assert_allclose(*ways, rtol=1e-3)


def test_symmetric_feedback_is_stochastic_gradient_descent() -> None:
    weights, _, examples = make(20)

    def predict(weights, images):
        return jax.vmap(lambda image: logits(weights, image, BETA))(images)

    learner = gradient_learner(predict, (True, True), optax.sgd(0.1))
    end, _ = unroll(learner, weights, learner.init(weights, None), examples)
    rule = Rule(find_terms(["pseudo_gradient"]), "sym", BETA)
    ours = adapt(rule, jnp.array([0.1]), weights, (), examples)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, end.params
    )


def test_memory_grows_by_vectors_when_updates_are_taken_back() -> None:
    sizes = (60, 50, 40)
    rule = Rule(find_terms(["pseudo_gradient", "oja"]), "fix", BETA)

    def bytes_needed(length, remat):
        weights, random, examples = make(length, sizes)
        gradient = jax.jit(
            jax.grad(functools.partial(outcome, rule=rule, random=random, remat=remat))
        )
        lowered = gradient.lower(coefficients_for(rule.terms), weights, examples=examples)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    matrices = 4 * sum(a * b for a, b in itertools.pairwise(sizes))
    grown = {r: bytes_needed(150, r) - bytes_needed(50, r) for r in ("reconstruct", "store")}
    assert grown["store"] > 90 * matrices
    assert grown["reconstruct"] < 40 * matrices
