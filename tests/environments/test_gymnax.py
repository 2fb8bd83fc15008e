"""Environments of gymnax: step by step what it computes itself, where it is installed.

It is no requirement of the tests, since it holds back JAX and Gymnasium.
"""

import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.environments.gymnax_env import gymnax_environment
from tsar_jax.environments.registry import find_environments
from tsar_jax.errors import NotInstalled, UserError
from tsar_jax.systems.hebbian.policy import PolicyConfig, make_policy
from tsar_jax.systems.hebbian.rollouts import lifetime_fitness

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KEY = jax.random.key(3)
STEPS = 12


def outputs(num_actions: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(STEPS, num_actions)).astype(np.float32) * 2


@pytest.mark.parametrize(
    "name", ["Pendulum-v1", "CartPole-v1", "Breakout-MinAtar", "Reacher-misc", "Catch-bsuite"]
)
def test_gymnax_steps_as_gymnax_does(name) -> None:
    gymnax = pytest.importorskip("gymnax")
    ours, (theirs, params) = gymnax_environment(name), gymnax.make(name)
    discrete = hasattr(theirs.action_space(params), "n")
    state = ours.reset(KEY)
    first, key = jax.random.split(KEY)
    observation, their_state = theirs.reset_env(first, params)
    step = jax.jit(ours.step)
    for output in outputs(ours.num_actions):
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(observation)])
        assert ours.observe(state).dtype == jnp.float32
        chex.assert_shape(ours.observe(state), ours.observation_shape)
        np.testing.assert_allclose(ours.observe(state), flat.astype(np.float32), rtol=1e-5)
        action = ours.act(output)
        if discrete:
            assert action == output.argmax()
        else:
            space = theirs.action_space(params)
            np.testing.assert_array_equal(
                action, np.clip(output.reshape(space.shape), space.low, space.high)
            )
        now, key = jax.random.split(key)
        observation, their_state, reward, done, _ = theirs.step_env(
            now, their_state, action, params
        )
        before, (state, our_reward, our_done) = state, step(state, action)
        chex.assert_trees_all_equal_shapes_and_dtypes(before, state)
        np.testing.assert_allclose(our_reward, reward, rtol=1e-5)
        assert our_done == done


def test_gymnax_is_our_own_pendulum() -> None:
    """Its episodes are as long, and a lifetime in it is one compiled program."""
    pytest.importorskip("gymnax")
    env = gymnax_environment("Pendulum-v1")
    own = find_environments("pendulum", (), "auto", "RK4").one(0)
    assert (env.observation_shape, env.num_actions) == (own.observation_shape, own.num_actions)
    assert env.max_episode_steps == own.max_episode_steps
    policy = make_policy(PolicyConfig(hidden=(3,)), env.observation_shape, env.num_actions)
    fitness = jax.jit(lambda genome, key: lifetime_fitness(policy, env, genome, key))
    found = fitness(policy.init(KEY), KEY)
    assert -17 * 200 < found < -10


def test_a_name_that_gymnax_does_not_know_is_named() -> None:
    pytest.importorskip("gymnax")
    with pytest.raises(UserError, match=r"no environment of gymnax 'Pendulum': .*Pendulum-v1"):
        find_environments("gymnax/Pendulum", (), "auto", "RK4")


def test_without_gymnax_its_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnax", None)
    with pytest.raises(NotInstalled, match=r'gymnax: .*"tsar_jax\[gymnax\]"'):
        gymnax_environment("Pendulum-v1")
