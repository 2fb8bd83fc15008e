"""The published Hebbian cart-pole, composed, against its own family: the same bits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.environments.registry import find_environments
from tsar_jax.errors import UserError
from tsar_jax.systems.compose.composition import compose
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.lifetimes import environment_objective, lifetime_keys
from tsar_jax.systems.compose.presets import PRESETS
from tsar_jax.systems.compose.streams import find_stream
from tsar_jax.systems.compose.system import make_system
from tsar_jax.systems.hebbian import rollouts
from tsar_jax.systems.hebbian.evolution import Genome
from tsar_jax.systems.hebbian.policy import PolicyConfig
from tsar_jax.systems.hebbian.presets import PRESETS as FAMILY_PRESETS
from tsar_jax.systems.hebbian.system import compiled_system, policy_for, strategy_for

STEPS, GENERATIONS = 40, 4
COMPOSED = PRESETS["hebbian-cart-pole"].config
FAMILY = FAMILY_PRESETS["cart-pole"].config
TOY = dataclasses.replace(COMPOSED, hidden=(8, 6), population=4, episode_steps=STEPS)
FAMILY_TOY = dataclasses.replace(
    FAMILY,
    limit=STEPS,
    policy=dataclasses.replace(FAMILY.policy, hidden=TOY.hidden),
    evolution=dataclasses.replace(FAMILY.evolution, population=TOY.population),
)


@pytest.fixture
def equal_keys(monkeypatch):
    """Rollouts of the family with the keys that a composition gives weights and environment."""

    def init_rollout(policy, environment, genome, key):
        keys = lifetime_keys(key)
        weights_key, _, _ = jax.random.split(keys.theta, 3)
        return environment.reset(keys.stream), policy.learner.init(genome, weights_key)

    monkeypatch.setattr(rollouts, "init_rollout", init_rollout)


def genome_of(theta):
    """The family's genome of what a composition meta-learns."""
    assert set(theta) == {"coefficients"}
    return Genome(theta["coefficients"], {"kernels": ()})


def assert_same_bits(ours, theirs) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_preset_has_the_numbers_of_the_familys() -> None:
    policy, evolution = FAMILY.policy, FAMILY.evolution
    for name in ("steps", "chunk", "eval_every", "checkpoint_every"):
        assert getattr(COMPOSED, name) == getattr(FAMILY, name), name
    found = {
        "environment": COMPOSED.stream,
        "limit": COMPOSED.episode_steps,
        "rollouts": COMPOSED.lifetimes,
        "evaluations": COMPOSED.eval_lifetimes / COMPOSED.lifetimes,
    }
    assert found == {name: getattr(FAMILY, name) for name in found}
    assert policy == PolicyConfig(
        rule=COMPOSED.hebbian_rule,
        initial=COMPOSED.initial,
        hidden=COMPOSED.hidden,
        distribution=COMPOSED.distribution,
        scale=COMPOSED.scale,
        normalised=True,
        bounded=False,
    )
    assert (COMPOSED.learner, COMPOSED.units, COMPOSED.sharing) == ("hebbian", "tanh", "synapse")
    assert dataclasses.asdict(evolution) == {
        "strategy": COMPOSED.meta_optimiser,
        "optimiser": None if COMPOSED.meta_descent == "sgd" else COMPOSED.meta_descent,
        "population": COMPOSED.population,
        "learning_rate": COMPOSED.meta_rate,
        "learning_rate_decay": COMPOSED.meta_rate_decay,
        "min_learning_rate": COMPOSED.min_meta_rate,
        "sigma": COMPOSED.sigma,
        "sigma_decay": COMPOSED.sigma_decay,
        "min_sigma": COMPOSED.min_sigma,
        "weight_decay": COMPOSED.weight_decay,
        "ties": "average",
    }


def test_the_first_generation_is_drawn_from_the_same_distributions() -> None:
    theta = jax.jit(compose(COMPOSED, find_stream(COMPOSED)).init)(jax.random.key(0))
    policy = policy_for(FAMILY, find_stream(COMPOSED))
    genome = jax.jit(policy.init)(jax.random.key(0))
    weights = jax.jit(policy.learner.init)(genome, jax.random.key(0))
    for ours, theirs in ((theta["coefficients"], genome.main), (theta["weights"], weights)):
        for one, other in zip(ours, theirs, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            moments = [(leaf.mean(), leaf.std(), abs(leaf).max() > 2) for leaf in (one, other)]
            np.testing.assert_allclose(*moments, atol=0.05)


@pytest.mark.usefixtures("equal_keys")
@pytest.mark.parametrize("stream", ["cart_pole", "pendulum"])
def test_every_step_of_a_lifetime_has_the_same_bits(stream) -> None:
    """Weights before each step, and its reward."""
    config = dataclasses.replace(TOY, stream=stream, segment=1)
    environment = find_stream(config)
    composition = compose(config, environment)
    parts = environment_objective(config, composition, environment).parts
    policy = policy_for(FAMILY_TOY, environment)

    @jax.jit
    def composed(theta, key):
        def step(state, part):
            after, loss, _ = parts.advance(theta, state, part, key)
            return after, (state[0], -loss)

        return jax.lax.scan(step, parts.init(theta, key), jnp.arange(parts.number))[1]

    @jax.jit
    def familys(theta, key):
        found = rollouts.trace(policy, environment, genome_of(theta), key, tuple(range(STEPS)))
        return found.watched, found.rewards

    for seed in range(3):
        theta = jax.jit(composition.first)(jax.random.key(seed))
        ours, theirs = (live(theta, jax.random.key(9 + seed)) for live in (composed, familys))
        assert np.ptp(ours[0][0], axis=0).min() > 0
        assert_same_bits(ours, theirs)


@pytest.mark.usefixtures("equal_keys")
def test_generations_have_the_same_bits() -> None:
    """Mean fitness, and the centre after each, while learning rate and noise decay."""
    composed = make_system(TOY, find_stream(TOY))
    variants = find_environments("cart_pole", (), "auto", "RK4", STEPS)
    familys = compiled_system(FAMILY_TOY, variants)
    strategy = strategy_for(FAMILY_TOY, policy_for(FAMILY_TOY, variants.one(0)))
    state = jax.jit(composed.init)(jax.random.key(0))
    theirs = strategy.init(genome_of(state.theta))
    ours_step, family_step = jax.jit(composed.step), jax.jit(familys.step)
    for key in jax.random.split(jax.random.key(1), GENERATIONS):
        before = state.theta
        state, metrics, _ = ours_step(state, (), key)
        theirs, summary, _ = family_step(theirs, (), key)
        np.testing.assert_array_equal(metrics["episode_return"], summary["fitness_mean"])
        assert_same_bits(genome_of(state.theta), theirs.genome)
        assert not np.array_equal(before["coefficients"][0], state.theta["coefficients"][0])
    assert int(state.estimator) == int(theirs.generation) == GENERATIONS


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"initial": "unii"}, "no kind of initial weights 'unii'"),
        ({"initial": "coevolve"}, "Initial weights 'coevolve' are evolved, not drawn"),
        ({"units": "relu"}, "no units 'relu'"),
        ({"distribution": "gamma"}, "no distribution 'gamma'"),
        ({"meta_descent": "rmsprop"}, "no meta_descent 'rmsprop'"),
        ({"sigma_decay": 0.0}, "sigma_decay must be positive"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"learner": "rule", "units": "tanh"}, "units is tanh, but the learner rule does not"),
        ({"learner": "sgd", "distribution": "normal"}, "distribution is normal, but the learner"),
        ({"weight_decay": 0.1}, "weight_decay is 0.1, but the meta-optimiser gradient does not"),
        ({"meta_optimiser": "pes", "sigma_decay": 0.9}, "sigma_decay is 0.9, but the meta-opti"),
    ],
)
def test_settings_that_a_choice_does_not_take_are_refused(settings, sentence) -> None:
    def begin():
        config = ComposeConfig(**settings)
        make_system(config, find_stream(config))

    with pytest.raises(UserError, match=sentence):
        begin()
