"""Environments by name, compiled or simulated outside JAX."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from tsar_jax.environments import brax_env, gymnax_env
from tsar_jax.environments.own import COMPILED, QUADRUPED
from tsar_jax.environments.quadruped_body import find_body
from tsar_jax.environments.types import Environment, HostEnvironments, Variants, unvaried
from tsar_jax.errors import UserError, check_known
from tsar_jax.modules import import_installed

ADAPTERS = {
    gymnax_env.PREFIX: gymnax_env.gymnax_environment,
    brax_env.PREFIX: brax_env.brax_environment,
}
"""Functions that make a compiled environment of another library, by the beginning of its name."""

ENGINES = ("auto", "mujoco", "mjx")

MakeEnvs = Callable[[int], list[HostEnvironments]]
"""Function (count) -> `count` copies of every environment in lockstep."""


def find_environments(
    name: str,
    bodies: Sequence[str],
    engine: str,
    integrator: str,
    max_episode_steps: int | None = None,
    default_episode_steps: int | None = None,
) -> Variants | MakeEnvs:
    """Return a compiled environment in every body, or a function that opens simulators.

    Args:
        name: one of `COMPILED`, quadruped, gymnax/NAME, brax/NAME, or a name that gymnasium
            registers.
        bodies, engine, integrator: the quadruped's.
        max_episode_steps: steps of an episode at most; None: as many as the environment has.
        default_episode_steps: steps where max_episode_steps is None and a gymnasium environment has
            no limit.

    Raises:
        UserError: the engine, body or integrator is unknown, a number of steps is below 1, or a
            package is missing; when it is opened, also for an environment that gymnasium does not
            know or that nothing limits.
    """
    check_known("engine", engine, ENGINES)
    for argument, steps in (
        ("max_episode_steps", max_episode_steps),
        ("default_episode_steps", default_episode_steps),
    ):
        if steps is not None and steps < 1:
            raise UserError(f"{argument} must be at least 1, but is {steps}.")
    if name not in COMPILED and name != QUADRUPED:
        import_installed()  # which may register it
    if name in COMPILED:
        return _shortened(unvaried(COMPILED[name]()), max_episode_steps)
    for prefix, adapt in ADAPTERS.items():
        if name.startswith(prefix):
            return _shortened(unvaried(adapt(name.removeprefix(prefix))), max_episode_steps)
    on_cpu = jax.default_backend() == "cpu"
    if name == QUADRUPED and not (engine == "mujoco" or (engine == "auto" and on_cpu)):
        return _shortened(_compiled(bodies, integrator), max_episode_steps)

    def make_envs(count: int) -> list[HostEnvironments]:
        if name == QUADRUPED:
            opened = [_simulated(body, integrator, count) for body in bodies]
        else:
            opened = [_gymnasium(name, count, max_episode_steps or default_episode_steps)]
        for env in opened:
            env.max_episode_steps = min(
                env.max_episode_steps, max_episode_steps or env.max_episode_steps
            )
        return opened

    return make_envs


def _shortened(variants: Variants, max_episode_steps: int | None) -> Variants:
    def make(parameters: Any) -> Environment:
        env = variants.make(parameters)
        steps = min(env.max_episode_steps, max_episode_steps or env.max_episode_steps)
        return env._replace(max_episode_steps=steps)

    return variants._replace(make=make)


def _gymnasium(name: str, count: int, default_episode_steps: int | None) -> HostEnvironments:
    from tsar_jax.environments.gymnasium_env import GymnasiumEnvironments

    return GymnasiumEnvironments(name, count, default_episode_steps=default_episode_steps)


def _simulated(body: str, integrator: str, count: int) -> HostEnvironments:
    from tsar_jax.environments.quadruped_mujoco import MujocoQuadrupeds

    return MujocoQuadrupeds([find_body(body, integrator)] * count)


def _compiled(bodies: Sequence[str], integrator: str) -> Variants:
    from tsar_jax.environments.quadruped_mjx import quadrupeds

    return quadrupeds([find_body(body, integrator) for body in bodies])
