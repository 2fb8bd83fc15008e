"""Lifetimes against stepping by hand, in a compiled world and in its twin outside JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environment import COMPILED, MAX_EPISODE_STEPS, OUTPUTS, SHAPE, Simulated

from tsar_jax.environments.types import unvaried
from tsar_jax.systems.hebbian.policy import PolicyConfig, make_policy
from tsar_jax.systems.hebbian.rollouts import (
    ENVIRONMENT_FOLD,
    INIT_FOLD,
    batch_policy,
    host_fitness,
    lifetime_fitness,
    traces,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

POLICY = make_policy(PolicyConfig(hidden=(4,)), SHAPE, OUTPUTS)
ENDS = (5, 3, 11, 8, 2)
AGENTS = len(ENDS)
SHORT = (0, 1, 4, 1, 0)  # agents whose lifetimes end before the limit
WATCH = (0, 4, 1, 7)


@pytest.fixture(scope="module")
def genomes():
    """One per agent, along the leading axis."""
    draw = jax.jit(jax.vmap(POLICY.init))
    return draw(jax.random.split(jax.random.key(0), AGENTS))


def of_agent(genomes, agent):
    return jax.tree.map(lambda leaf: leaf[agent], genomes)


@pytest.fixture(scope="module")
def genome(genomes):
    return of_agent(genomes, 0)


@pytest.fixture(scope="module")
def keys():
    """One per agent, of lifetimes that end as `ENDS` says."""

    @jax.jit
    def draw(key):
        keys = jax.random.split(key, 100)
        return keys, jax.vmap(
            lambda key: COMPILED.reset(jax.random.fold_in(key, ENVIRONMENT_FOLD))
        )(keys).end

    drawn, ends = draw(jax.random.key(1))
    return drawn[jnp.asarray([ends.tolist().index(end) for end in ENDS])]


@pytest.fixture(scope="module")
def policies():
    """All of one genome."""
    return batch_policy(POLICY, AGENTS, one_genome=True)


@pytest.fixture(scope="module")
def own_policies():
    """Each of a genome of its own."""
    return batch_policy(POLICY, AGENTS)


@pytest.fixture(scope="module")
def by_hand():
    """(genome, key) -> the rewards of a lifetime, and the weights before each step and at last."""

    @jax.jit
    def start(genome, key):
        weights = POLICY.learner.init(genome, jax.random.fold_in(key, INIT_FOLD))
        return weights, COMPILED.reset(jax.random.fold_in(key, ENVIRONMENT_FOLD))

    @jax.jit
    def step(genome, weights, state):
        weights, outputs = POLICY.learner.update(genome, weights, COMPILED.observe(state))
        return weights, *COMPILED.step(state, COMPILED.act(outputs))

    def live(genome, key):
        genome = POLICY.prepare(genome)
        first, state = start(genome, key)
        weights, rewards = [first], []
        while len(rewards) < MAX_EPISODE_STEPS:
            learned, state, reward, done = step(genome, weights[-1], state)
            weights.append(learned)
            rewards.append(float(reward))
            if done:
                break
        return rewards, weights

    return live


def test_fitness_is_the_sum_of_rewards_until_the_end(genome, keys, by_hand) -> None:
    fitness = jax.jit(lambda key: lifetime_fitness(POLICY, COMPILED, genome, key))
    found = [fitness(key) for key in keys]
    wanted = [sum(by_hand(genome, key)[0]) for key in keys]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.fixture(scope="module")
def short(keys):
    """Of lifetimes of which none lasts until the limit."""
    return keys[jnp.asarray(SHORT)]


@pytest.fixture(scope="module", params=["compiled", "simulated"])
def traced(request, genome, short):
    worlds = unvaried(COMPILED) if request.param == "compiled" else [Simulated(AGENTS)]
    (traced,) = traces(POLICY, worlds, genome, short, WATCH)
    return traced


def test_a_trace_has_every_reward_until_the_end_and_none_after_it(
    traced, genome, short, by_hand
) -> None:
    for rewards, lived, key, agent in zip(traced.rewards, traced.mask, short, SHORT, strict=True):
        wanted, _ = by_hand(genome, key)
        assert len(wanted) == ENDS[agent]
        np.testing.assert_allclose(rewards[: len(wanted)], wanted, rtol=1e-5)
        assert not rewards[len(wanted) :].any()
        np.testing.assert_array_equal(lived, np.arange(MAX_EPISODE_STEPS) < len(wanted))


def test_weights_are_watched_before_their_step_and_stay_after_the_end(
    traced, genome, short, by_hand
) -> None:
    for layer, watched in enumerate(traced.watched):
        assert watched.shape[:2] == (AGENTS, len(WATCH))
        for agent, key in enumerate(short):
            _, weights = by_hand(genome, key)
            for found, time in zip(watched[agent], WATCH, strict=True):
                wanted = weights[min(time, len(weights) - 1)][layer]
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_every_agent_lives_by_its_own_genome(own_policies, genomes, keys, by_hand) -> None:
    found = host_fitness(own_policies, Simulated(AGENTS), genomes, keys)
    wanted = [sum(by_hand(of_agent(genomes, i), key)[0]) for i, key in enumerate(keys)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_one_genome_is_the_same_as_a_copy_for_each(policies, own_policies, genome, keys) -> None:
    copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * AGENTS), genome)
    env = Simulated(AGENTS)
    one = host_fitness(policies, env, genome, keys)
    each = host_fitness(own_policies, env, copies, keys)
    np.testing.assert_allclose(one, each, rtol=1e-6)
    twins = host_fitness(policies, env, genome, keys[jnp.asarray([2, 2, 0, 0, 1])])
    np.testing.assert_array_equal(twins[[0, 2]], twins[[1, 3]])
    np.testing.assert_allclose(twins[[0, 2, 4]], one[[2, 0, 1]], rtol=1e-6)


def test_a_reward_that_is_no_number_is_its_agents_alone(policies, genome, keys) -> None:
    class Broken(Simulated):
        def step(self, outputs):
            observations, rewards, done = super().step(outputs)
            rewards[1] = np.nan
            return observations, rewards, done

    found = host_fitness(policies, Broken(AGENTS), genome, keys)
    whole = host_fitness(policies, Simulated(AGENTS), genome, keys)
    np.testing.assert_array_equal(found, np.where(np.arange(AGENTS) == 1, np.nan, whole))


def test_a_compiled_reward_that_is_no_number_counts_until_the_end(genome, keys) -> None:
    @jax.jit
    def fitness(after):
        def step(state, action):
            new, reward, done = COMPILED.step(state, action)
            return new, jnp.where(new.time > after, jnp.nan, reward), done

        return lifetime_fitness(POLICY, COMPILED._replace(step=step), genome, keys[0])

    assert np.isnan(fitness(ENDS[0] - 1))
    assert np.isfinite(fitness(ENDS[0]))
