"""The compiled classic tasks, step by step against Gymnasium's."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from tsar_jax.environments.classic import (
    CART_INTERVAL,
    CART_TILT,
    CART_TRACK,
    CartPole,
    Pendulum,
    cart_pole,
    pendulum,
)

STEPS = 300
NAMES = {"CartPole-v1": cart_pole, "Pendulum-v1": pendulum}
STATES = {"CartPole-v1": CartPole, "Pendulum-v1": Pendulum}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@functools.cache
def compiled(name):
    """A state and a network's outputs -> the step they lead to and what is then observed."""
    task = NAMES[name]()

    def advance(state, outputs):
        new, reward, done = task.step(state, task.act(outputs))
        return new, task.observe(new), reward, done

    return jax.jit(advance)


@functools.cache
def original(name):
    return gymnasium.make(name).unwrapped


def theirs(name, state, outputs):
    """Gymnasium's step from a state of ours: state, observation, reward, done."""
    env = original(name)
    env.reset(seed=0)
    env.state = np.array(state, np.float64)
    action = int(outputs[1] > outputs[0]) if name == "CartPole-v1" else outputs
    observation, reward, terminated, _, _ = env.step(action)
    return env.state, observation, reward, terminated


def assert_same_step(name, state, outputs, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        ours = jax.device_get(compiled(name)(state, outputs))
    new, observation, reward, done = ours
    wanted, seen, wanted_reward, terminated = theirs(name, state, outputs)
    close = functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    close(np.array(new), wanted)
    close(observation, seen, rtol=1e-5, atol=1e-5)  # theirs is float32
    close(reward, wanted_reward)
    assert done == terminated
    assert {array.dtype for array in (*new, observation, reward)} == {np.dtype(dtype)}
    return new, done


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_hundreds_of_steps_are_gymnasiums(name, dtype, tolerance) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == np.float64):
        keys = jax.random.split(jax.random.key(0), STEPS)
        starts = jax.device_get(jax.jit(jax.vmap(NAMES[name]().reset))(keys))
    state, ends = jax.tree.map(lambda leaf: leaf[0], starts), 0
    for t in range(STEPS):
        outputs = rng.normal(0, 2, NAMES[name]().num_actions).astype(dtype)
        state, done = assert_same_step(name, state, outputs, dtype, tolerance)
        if done:
            ends += 1
            state = jax.tree.map(lambda leaf, t=t: leaf[t], starts)
    assert ends == 0 if name == "Pendulum-v1" else ends > 5


# XLA takes subnormal numbers for zero, and so another of two outputs for the larger.
normal = functools.partial(st.floats, allow_subnormal=False)
near, far = normal(-3, 3), normal(-20, 20)


@settings(max_examples=60, deadline=None)
@given(st.tuples(near, far, near, far), st.tuples(near, near))
def test_the_cart_moves_as_gymnasiums_from_any_state(values, outputs) -> None:
    state = CartPole(*np.array(values))
    x, theta = values[0] + CART_INTERVAL * values[1], values[2] + CART_INTERVAL * values[3]
    # A cart that ends exactly on the edge is on either side of it by a rounding error.
    assume(min(abs(abs(x) - CART_TRACK), abs(abs(theta) - CART_TILT)) > 1e-9)
    assert_same_step("CartPole-v1", state, np.array(outputs), np.float64, 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.tuples(far, normal(-8, 8)), normal(-5, 5))
def test_the_pendulum_swings_as_gymnasiums_from_any_state(values, torque) -> None:
    state = Pendulum(*np.array(values))
    assert_same_step("Pendulum-v1", state, np.array([torque]), np.float64, 1e-12)


def test_sizes_and_limit_are_gymnasiums(name) -> None:
    task, env = NAMES[name](), gymnasium.make(name)
    assert task.max_episode_steps == env.spec.max_episode_steps
    assert task.observation_shape == env.observation_space.shape
    actions = env.action_space
    assert task.num_actions == (actions.n if name == "CartPole-v1" else actions.shape[0])
    state = task.reset(jax.random.key(0))
    assert task.observe(state).shape == task.observation_shape


def test_episodes_begin_where_gymnasiums_may(name) -> None:
    keys = jax.random.split(jax.random.key(1), 4000)
    starts = np.array(jax.vmap(NAMES[name]().reset)(keys))
    high = {"CartPole-v1": [0.05] * 4, "Pendulum-v1": [np.pi, 1]}[name]
    for values, bound in zip(starts, high, strict=True):
        assert np.abs(values).max() <= np.float32(bound)
        assert kstest(values, "uniform", (-bound, 2 * bound)).pvalue > 1e-3
    between = np.corrcoef(starts) - np.eye(len(high))
    assert np.abs(between).max() < 0.08


def test_the_largest_output_pushes_and_a_torque_is_clipped() -> None:
    assert [int(cart_pole().act(jnp.array(o))) for o in ([1.0, 2.0], [-1.0, -2.0])] == [1, 0]
    swing = pendulum().act
    assert [float(swing(jnp.array([o]))[0]) for o in (-9.0, -1.5, 9.0)] == [-2.0, -1.5, 2.0]


def test_outputs_of_another_number_are_refused(name) -> None:
    with pytest.raises(AssertionError):
        NAMES[name]().act(jnp.zeros(3))


def test_a_step_keeps_the_types_of_a_state(name) -> None:
    """A scan over steps, or a second compiled call, would not take it otherwise."""
    task = NAMES[name]()
    before = jax.eval_shape(task.reset, jax.random.key(0))
    after, reward, done = jax.eval_shape(
        lambda key: task.step(task.reset(key), task.act(jnp.zeros(task.num_actions))),
        jax.random.key(0),
    )
    assert [(leaf.dtype, leaf.shape, leaf.weak_type) for leaf in before] == [
        (leaf.dtype, leaf.shape, leaf.weak_type) for leaf in after
    ]
    assert (reward.shape, reward.dtype) == ((), jnp.float32)
    assert (done.shape, done.dtype) == ((), bool)
