"""A small world that exists twice, compiled and simulated outside JAX, step for step the same."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.environments.types import Environment, HostEnvironments

SHAPE, OUTPUTS, MAX_EPISODE_STEPS = (3,), 2, 8


class State(NamedTuple):
    """place: what is observed [3]; time: steps so far; end: at which the episode is done."""

    place: jax.Array
    time: jax.Array
    end: jax.Array


def begin(seed: jax.Array) -> State:
    """An episode of 2 to 11 steps, the longest of them cut at the limit."""
    place = jnp.sin(jnp.arange(1.0, 4.0) * (seed % 97))
    return State(place, jnp.zeros((), jnp.int32), (2 + seed % 10).astype(jnp.int32))


def step(state: State, action: jax.Array) -> tuple[State, jax.Array, jax.Array]:
    """Goes on, and on earning, after the end too."""
    place = jnp.sin(2 * state.place + jnp.pad(action, (0, 1)))
    new = State(place, state.time + 1, state.end)
    return new, place[0] + 2, new.time >= state.end


COMPILED = Environment(
    reset=lambda key: begin(jax.random.bits(key)),
    observe=lambda state: state.place,
    act=jnp.tanh,
    step=step,
    observation_shape=SHAPE,
    num_actions=OUTPUTS,
    max_episode_steps=MAX_EPISODE_STEPS,
)


class Simulated(HostEnvironments):
    """`count` such worlds in lockstep."""

    observation_shape, num_actions, max_episode_steps = SHAPE, OUTPUTS, MAX_EPISODE_STEPS
    state: Any

    def __init__(self, count: int) -> None:
        self.count = count

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        assert seeds.shape == (self.count,)
        self.state = jax.vmap(begin)(seeds)
        return np.asarray(self.state.place)

    def step(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert outputs.shape == (self.count, self.num_actions)
        self.state, rewards, done = _step_all(self.state, outputs)
        return np.asarray(self.state.place), np.array(rewards), np.asarray(done)

    def close(self) -> None:
        pass


_step_all = jax.jit(jax.vmap(lambda state, outputs: step(state, COMPILED.act(outputs))))
