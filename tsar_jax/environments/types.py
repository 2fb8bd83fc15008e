"""Interfaces of environments: compiled with the policy, or simulated outside JAX."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

State = Any
"""A pytree of arrays: one environment at one time step."""


class Environment(NamedTuple):
    """One environment as pure functions, compiled together with the policy that acts in it.

    reset: (key) -> State
    observe: (State) -> observation, float [*observation_shape]
    act: (network output float [num_actions]) -> action, as step takes it
    step: (State, action) -> (State, reward, done); reward and done are scalars
    num_actions: number of outputs of a policy's last layer
    max_episode_steps: number of steps after which an episode ends at the latest
    """

    reset: Callable[[jax.Array], State]
    observe: Callable[[State], jax.Array]
    act: Callable[[jax.Array], jax.Array]
    step: Callable[[State, jax.Array], tuple[State, jax.Array, jax.Array]]
    observation_shape: tuple[int, ...]
    num_actions: int
    max_episode_steps: int


class Variants(NamedTuple):
    """One environment with several sets of physical parameters, which one program computes.

    make: (parameters of one variant) -> Environment, pure: parameters may be traced.
    parameters: of all variants, a pytree of arrays [size, ...]; empty where there is but one.
    size: number of variants, at least 1.
    """

    make: Callable[[Any], Environment]
    parameters: Any
    size: int

    def parameters_of(self, index: int) -> Any:
        """Return the parameters of one variant, counted from 0."""
        return jax.tree.map(lambda leaf: leaf[index], self.parameters)

    def one(self, index: int) -> Environment:
        """Return one variant, counted from 0; a program made of it is for this variant alone."""
        return self.make(self.parameters_of(index))


def unvaried(environment: Environment) -> Variants:
    """Return an environment as the only one of its variants."""
    return Variants(lambda parameters: environment, (), 1)


class HostEnvironments(Protocol):
    """`count` environments in lockstep, simulated outside JAX.

    The attributes are those of `Environment`. An environment that is done keeps giving observations
    of the right shape, which mean nothing, and rewards of 0, until the next reset.
    """

    count: int
    observation_shape: tuple[int, ...]
    num_actions: int
    max_episode_steps: int

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begin an episode in each, from seeds uint32 [count]; return observations [count, ...]."""
        ...

    def step(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Map network outputs [count, num_actions] to observations, rewards and done [count]."""
        ...

    def close(self) -> None:
        """Free the simulator."""
        ...
