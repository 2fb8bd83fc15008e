"""Any environment of gymnax, compiled with the policy that acts in it.

https://github.com/RobertTLange/gymnax. An episode is a function of its key alone.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from tsar_jax.environments.types import Environment
from tsar_jax.errors import UserError, check_known, missing_extra

PREFIX = "gymnax/"
"""Beginning of these environments' names, as in gymnax/Pendulum-v1."""


class GymnaxState(NamedTuple):
    """State of an episode. env: gymnax's own. observation: of it. key: of the steps to come."""

    env: Any
    observation: jax.Array
    key: jax.Array


def gymnax_environment(name: str) -> Environment:
    """Return an environment of gymnax with its default parameters.

    Observations are flat vectors, float32. Outputs become actions by argmax (Discrete) or by
    clipping (Box). An episode is not begun anew where it is done.

    Args:
        name: as gymnax registers it, such as Pendulum-v1.

    Raises:
        UserError: there is none of the name, or its actions are of another kind.
        NotInstalled: gymnax is missing.
    """
    try:
        import gymnax
    except ImportError as error:
        raise missing_extra(f"{PREFIX}{name}", "gymnax", "gymnax") from error
    check_known("environment of gymnax", name, gymnax.registered_envs)
    env, params = gymnax.make(name)
    num_actions, act = _actions(f"{PREFIX}{name}", env.action_space(params))

    def reset(key: jax.Array) -> GymnaxState:
        first, key = jax.random.split(key)
        observation, state = env.reset_env(first, params)
        arrays = jax.tree.map(jnp.asarray, state)  # some begin with Python's numbers
        return GymnaxState(arrays, _flat(observation), key)

    def step(state: GymnaxState, action: jax.Array) -> tuple[GymnaxState, jax.Array, jax.Array]:
        now, key = jax.random.split(state.key)
        # Not gymnax's `step`, which begins a new episode at the end of one.
        observation, after, reward, done, _ = env.step_env(now, state.env, action, params)
        same = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, state.env)
        ended = jnp.asarray(done, bool)
        return GymnaxState(same, _flat(observation), key), jnp.float32(reward), ended

    first = jax.eval_shape(reset, jax.random.key(0))
    return Environment(
        reset=reset,
        observe=lambda state: state.observation,
        act=act,
        step=step,
        observation_shape=first.observation.shape,
        num_actions=num_actions,
        max_episode_steps=int(params.max_steps_in_episode),
    )


def _flat(observation: Any) -> jax.Array:
    """Return an observation, whatever arrays it is of, as one vector float32 [n]."""
    return ravel_pytree(observation)[0].astype(jnp.float32)


def _actions(name: str, space: Any) -> tuple[int, Callable[[jax.Array], jax.Array]]:
    """Return the number of outputs, and what makes an action of them."""
    if type(space).__name__ == "Discrete":
        return int(space.n), lambda outputs: jnp.argmax(outputs).astype(space.dtype)
    if type(space).__name__ == "Box":

        def clip(outputs: jax.Array) -> jax.Array:
            return jnp.clip(outputs.reshape(space.shape), space.low, space.high)

        return math.prod(space.shape), clip
    raise UserError(f"Actions of {name} are {space}: choose one with discrete or box actions.")
