"""What a rollout asks of an environment: one compiled with it, or a simulator outside JAX."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

State = Any
"""A pytree of arrays: one environment at one time."""


class Environment(NamedTuple):
    """One environment as pure functions, to be compiled with the policy that lives in it.

    reset: (key) -> State
    observe: (State) -> observation, float [*observation_shape]
    act: (network output [outputs]) -> action, as step takes it
    step: (State, action) -> (State, reward, done); reward and done are scalars
    outputs: units that a policy's last layer needs
    limit: steps after which an episode ends at the latest
    """

    reset: Callable[[jax.Array], State]
    observe: Callable[[State], jax.Array]
    act: Callable[[jax.Array], jax.Array]
    step: Callable[[State, jax.Array], tuple[State, jax.Array, jax.Array]]
    observation_shape: tuple[int, ...]
    outputs: int
    limit: int


class HostEnvironments(Protocol):
    """`count` environments in lockstep, simulated outside JAX.

    Attributes as of `Environment`. An environment that is done keeps giving observations of the
    right shape, which mean nothing, and rewards of 0, until the next reset.
    """

    count: int
    observation_shape: tuple[int, ...]
    outputs: int
    limit: int

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begins an episode in each, from seeds uint32 [count]; observations [count, ...]."""
        ...

    def step(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Network outputs float [count, outputs] -> observations, rewards and done [count]."""
        ...

    def close(self) -> None:
        """Frees what the simulator holds."""
        ...
