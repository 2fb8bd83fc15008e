"""Plastic and static policies: their genomes, their births and one step of their lives."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from tsar_jax.errors import UserError
from tsar_jax.networks.hebbian_network import FEATURES, KERNELS, forward, image_features
from tsar_jax.plasticity.hebbian import RULES, hebbian_update
from tsar_jax.systems.hebbian.policy import PolicyConfig, make_policy

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KEY, OTHER = jax.random.key(0), jax.random.key(1)
INPUTS, OUTPUTS = 3, 2
LAYERS = [(4, INPUTS), (OUTPUTS, 4)]


@functools.cache
def made(**settings):
    """A policy of four hidden units, its first genome and its weights at birth."""
    policy = make_policy(PolicyConfig(hidden=(4,), **settings), (INPUTS,), OUTPUTS)
    genome = policy.init(KEY)
    return policy, genome, policy.learner.init(genome, OTHER)


def shapes(tree):
    return jax.tree.map(lambda leaf: leaf.shape, tree)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_has_all_its_coefficients_for_every_synapse(rule) -> None:
    policy = make_policy(PolicyConfig(hidden=(4,), rule=rule), (INPUTS,), OUTPUTS)
    genome = jax.eval_shape(policy.init, KEY)
    weights = jax.eval_shape(policy.learner.init, genome, OTHER)
    count = len(RULES[rule].columns)
    assert policy.plastic
    assert shapes(genome.main) == tuple((count, *shape) for shape in LAYERS)
    assert genome.coevolved == {"kernels": ()}
    assert shapes(weights) == tuple(LAYERS)


def test_a_plastic_lifetime_begins_with_weights_of_its_own() -> None:
    policy, genome, weights = made(initial="uni")
    again, other = policy.learner.init(genome, OTHER), policy.learner.init(genome, KEY)
    for one, same, different in zip(weights, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, different)
        assert np.abs(one).max() <= 0.1
    np.testing.assert_array_equal(made(initial="ones")[2][0], np.ones((4, INPUTS)))


def test_coevolved_weights_are_born_as_they_evolved() -> None:
    policy, genome, weights = made(initial="coevolve")
    assert shapes(genome.coevolved) == {"kernels": (), "weights": tuple(LAYERS)}
    assert shapes(genome.main) == tuple((5, *shape) for shape in LAYERS)
    for key in (KEY, OTHER):
        for born, evolved in zip(policy.learner.init(genome, key), weights, strict=True):
            np.testing.assert_array_equal(born, evolved)


@pytest.mark.parametrize("initial", ["normal", "coevolve"])
def test_static_weights_are_the_genome(initial) -> None:
    policy, genome, weights = made(rule="static", initial=initial)
    assert not policy.plastic
    assert shapes(genome) == (tuple(LAYERS), {"kernels": ()})
    for born, evolved in zip(weights, genome.main, strict=True):
        np.testing.assert_array_equal(born, evolved)


@pytest.mark.parametrize("rule", ["ABC", "ABCD_lr", "static"])
@pytest.mark.parametrize(("bounded", "normalised"), [(False, True), (True, False)])
def test_a_step_answers_with_the_weights_before_it_changes_them(rule, bounded, normalised) -> None:
    policy, genome, weights = made(rule=rule, bounded=bounded, normalised=normalised)
    observation = jnp.asarray([0.5, -1.0, 2.0])
    learned, outputs = policy.learner.update(policy.prepare(genome), weights, observation)
    activities = forward(weights, observation, bounded=bounded)
    np.testing.assert_allclose(outputs, activities[-1], rtol=1e-6)
    wanted = weights
    if rule != "static":
        wanted = hebbian_update(
            RULES[rule], genome.main, weights, activities, normalised=normalised
        )
        assert np.abs(learned[0] - weights[0]).max() > 0.1
    for ours, theirs in zip(learned, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", ["ABCD_lr", "static"])
def test_a_gain_is_the_environments_alone(rule) -> None:
    observation = jnp.asarray([0.5, -1.0, 2.0])
    policy, genome, weights = made(rule=rule, bounded=True)
    learned, outputs = policy.learner.update(policy.prepare(genome), weights, observation)
    strong, *_ = made(rule=rule, bounded=True, gain=3.0)
    same, stronger = strong.learner.update(policy.prepare(genome), weights, observation)
    np.testing.assert_allclose(stronger, 3 * outputs, rtol=1e-6)
    for ours, theirs in zip(same, learned, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_first_coefficients_are_scaled() -> None:
    for small, usual in zip(made(scale=0.1)[1].main, made()[1].main, strict=True):
        np.testing.assert_allclose(small, 0.1 * usual, rtol=1e-6)


DRAWN = pytest.mark.parametrize(
    ("distribution", "wanted"), [("normal", ("norm", ())), ("uniform", ("uniform", (-1, 2)))]
)


@DRAWN
@pytest.mark.parametrize("rule", ["ABCD_lr", "static"])
def test_what_evolves_begins_as_one_distribution_has_it(rule, distribution, wanted) -> None:
    """Coefficients, and weights that evolve along or by themselves."""
    config = PolicyConfig(hidden=(40,), rule=rule, initial="coevolve", distribution=distribution)
    genome = make_policy(config, (40,), 40).init(KEY)
    drawn = list(map(np.ravel, (*genome.main, *genome.coevolved.get("weights", ()))))
    assert len(drawn) == (2 if rule == "static" else 4)
    for values in drawn:
        assert kstest(values, *wanted).pvalue > 1e-3
        assert sum(np.array_equal(values, other) for other in drawn) == 1


@DRAWN
@pytest.mark.parametrize("rule", ["ABCD_lr", "static"])
def test_convolutions_begin_as_coefficients_do(rule, distribution, wanted) -> None:
    config = PolicyConfig(hidden=(4,), rule=rule, distribution=distribution)
    kernels = make_policy(config, (84, 84, 3), OUTPUTS).init(KEY).coevolved["kernels"]
    for kernel in kernels:
        assert kstest(np.ravel(kernel), *wanted).pvalue > 1e-3


def test_a_scale_is_the_coefficients_alone() -> None:
    config = PolicyConfig(hidden=(4,), initial="coevolve", scale=0.1)
    large = dataclasses.replace(config, scale=1.0)
    small, usual = (make_policy(each, (84, 84, 3), OUTPUTS).init(KEY) for each in (config, large))
    jax.tree.map(np.testing.assert_array_equal, small.coevolved, usual.coevolved)
    np.testing.assert_allclose(small.main[0], 0.1 * usual.main[0], rtol=1e-6)


@pytest.fixture(scope="module")
def seeing():
    """A plastic policy of pictures, its genome and weights at birth; alike pictures look alike."""
    policy = make_policy(PolicyConfig(hidden=(4,), kernels="fan_in"), (84, 84, 3), OUTPUTS)
    genome = policy.init(KEY)
    return policy, genome, policy.learner.init(genome, OTHER)


def test_a_pixel_policy_evolves_its_convolutions_along(seeing) -> None:
    _, genome, weights = seeing
    layers = [(4, FEATURES), (OUTPUTS, 4)]
    assert shapes(genome.main) == tuple((5, *shape) for shape in layers)
    assert shapes(weights) == tuple(layers)
    assert shapes(genome.coevolved) == {"kernels": KERNELS}
    static = make_policy(PolicyConfig(hidden=(4,), rule="static"), (84, 84, 3), OUTPUTS)
    assert shapes(jax.eval_shape(static.init, KEY)) == (tuple(layers), {"kernels": KERNELS})


def test_convolutions_may_begin_small(seeing) -> None:
    for kernel in seeing[1].coevolved["kernels"]:
        bound = kernel[..., 0].size ** -0.5
        assert kstest(np.ravel(kernel), "uniform", (-bound, 2 * bound)).pvalue > 1e-3


def test_a_pixel_policy_learns_from_the_features_of_a_picture(seeing) -> None:
    policy, genome, weights = seeing
    picture = np.random.default_rng(0).integers(0, 256, (84, 84, 3), np.uint8)
    learned, outputs = policy.learner.update(policy.prepare(genome), weights, picture)
    features = image_features(genome.coevolved["kernels"], jnp.asarray(picture / 255, jnp.float32))
    activities = forward(weights, features, bounded=False)
    wanted = hebbian_update(RULES["ABCD_lr"], genome.main, weights, activities, normalised=True)
    np.testing.assert_allclose(outputs, activities[-1], rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(learned, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_picture_of_another_size_is_resized(seeing) -> None:
    policy, genome, weights = seeing
    _, small = policy.learner.update(policy.prepare(genome), weights, halves(84, 42))
    _, large = policy.learner.update(policy.prepare(genome), weights, halves(96, 48))
    _, other = policy.learner.update(policy.prepare(genome), weights, halves(96, 12))
    np.testing.assert_allclose(large, small, rtol=0.05)
    assert np.abs(other - small).max() > 0.05 * np.abs(small).max()


def halves(side, black):
    """A white picture, its upper rows black."""
    picture = np.full((side, side, 3), 255, np.uint8)
    picture[:black] = 0
    return picture


@pytest.mark.parametrize("shape", [(), (0,), (4, 4), (84, 84, 1), (84, 84, 4), (2, 84, 84, 3)])
def test_observations_that_suit_no_policy_are_named(shape) -> None:
    with pytest.raises(UserError, match="suit no policy: they must be a vector or an image"):
        make_policy(PolicyConfig(), shape, OUTPUTS)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rule": "oja"}, "There is no Hebbian rule 'oja'"),
        ({"initial": "one"}, "There is no kind of initial weights 'one'"),
        ({"distribution": "cauchy"}, "There is no distribution 'cauchy': choose from normal, uni"),
        ({"kernels": "small"}, "There is no start of the convolutions 'small': choose from fan_in"),
        ({"hidden": (4, 0)}, r"hidden must be widths of at least 1, but is \(4, 0\)"),
    ],
)
def test_impossible_settings_are_named(settings, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        PolicyConfig(**settings)
