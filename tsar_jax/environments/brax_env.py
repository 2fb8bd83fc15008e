"""Any environment of Brax, compiled with the policy that acts in it.

https://github.com/google/brax. On a GPU XLA adds scattered values in no fixed order unless
XLA_FLAGS has --xla_gpu_deterministic_ops=true: a repetition may differ in the last bits there.
"""

import jax
import jax.numpy as jnp

from tsar_jax.environments.types import Environment
from tsar_jax.errors import check_known, missing_extra

PREFIX = "brax/"
"""Beginning of these environments' names, as in brax/ant."""
EPISODE_STEPS = 1000
"""Steps of an episode, Brax's default; its environments themselves have no limit."""


def brax_environment(name: str) -> Environment:
    """Return an environment of Brax as its registry makes it, in the default pipeline.

    Outputs become actions by clipping to -1 to 1. An episode is not begun anew where it is done.

    Args:
        name: as Brax registers it, such as ant.

    Raises:
        UserError: there is none of the name.
        NotInstalled: Brax is missing.
    """
    try:
        from brax import envs
    except ImportError as error:
        raise missing_extra(f"{PREFIX}{name}", "Brax", "brax") from error
    check_known("environment of Brax", name, envs._envs)
    env = envs.get_environment(name)

    def step(state: envs.State, action: jax.Array) -> tuple[envs.State, jax.Array, jax.Array]:
        after = env.step(state, action)
        return after, after.reward, after.done > 0.5

    return Environment(
        reset=env.reset,
        observe=lambda state: state.obs,
        act=lambda outputs: jnp.clip(outputs, -1, 1),
        step=step,
        observation_shape=jax.eval_shape(env.reset, jax.random.key(0)).obs.shape,
        num_actions=env.action_size,
        max_episode_steps=EPISODE_STEPS,
    )
