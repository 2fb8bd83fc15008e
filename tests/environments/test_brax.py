"""Environments of Brax: step by step what it computes itself."""

import sys

import chex
import jax
import numpy as np
import pytest
from brax import envs as brax_envs

from tsar_jax.environments.brax_env import brax_environment
from tsar_jax.environments.registry import find_environments
from tsar_jax.errors import NotInstalled, UserError
from tsar_jax.systems.hebbian.policy import PolicyConfig, make_policy
from tsar_jax.systems.hebbian.rollouts import lifetime_fitness

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KEY = jax.random.key(3)
STEPS = 12


def outputs(num_actions: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(STEPS, num_actions)).astype(np.float32) * 2


def test_brax_steps_as_brax_does() -> None:
    ours, theirs = brax_environment("fast"), brax_envs.get_environment("fast")
    state, their_state = ours.reset(KEY), theirs.reset(KEY)
    step, their_step = jax.jit(ours.step), jax.jit(theirs.step)
    for output in outputs(ours.num_actions):
        np.testing.assert_allclose(ours.observe(state), their_state.obs)
        chex.assert_shape(ours.observe(state), ours.observation_shape)
        action = ours.act(output)
        np.testing.assert_array_equal(action, output.clip(-1, 1))
        their_state = their_step(their_state, action)
        before, (state, reward, done) = state, step(state, action)
        chex.assert_trees_all_equal_shapes_and_dtypes(before, state)
        np.testing.assert_allclose(reward, their_state.reward)
        assert done == (their_state.done > 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ant", "inverted_pendulum"])
def test_a_body_of_brax_lives(name) -> None:
    env = find_environments(f"brax/{name}", (), "auto", "RK4", 5).one(0)
    policy = make_policy(PolicyConfig(hidden=(3,)), env.observation_shape, env.num_actions)
    found = jax.jit(lambda g, k: lifetime_fitness(policy, env, g, k))(policy.init(KEY), KEY)
    assert np.isfinite(found)


def test_what_there_is_not_is_named(monkeypatch) -> None:
    with pytest.raises(UserError, match=r"no environment of Brax 'aunt': .*nearest is ant"):
        find_environments("brax/aunt", (), "auto", "RK4")
    monkeypatch.setitem(sys.modules, "brax", None)
    with pytest.raises(NotInstalled, match=r'Brax: .*"tsar_jax\[brax\]"'):
        brax_environment("ant")
