"""Environments by name: which are compiled, and which are simulated outside JAX."""

from collections.abc import Callable, Sequence

import jax

from tsar_jax.environments.own import COMPILED, QUADRUPED
from tsar_jax.environments.types import Environment, HostEnvironments
from tsar_jax.errors import UserError, check_known
from tsar_jax.modules import import_installed

ENGINES = ("auto", "mujoco", "mjx")

OpenWorlds = Callable[[int], list[HostEnvironments]]
"""(count) -> `count` copies of every environment in lockstep."""


def find_environments(
    name: str,
    bodies: Sequence[str],
    engine: str,
    integrator: str,
    limit: int | None = None,
    otherwise: int | None = None,
) -> list[Environment] | OpenWorlds:
    """Compiled environments, one for every body; or a function that opens simulators.

    name: one of `COMPILED`, quadruped, or what gymnasium registers. bodies, engine, integrator: the
    quadruped's. limit: most steps of a lifetime; None: as many as the environment has, or as
    `otherwise` says where one of gymnasium has no limit. Raises UserError for an unknown engine,
    body or integrator, a limit below 1, or a missing package; for an environment that gymnasium
    does not know or that nothing limits, when it is opened.
    """
    check_known("engine", engine, ENGINES)
    for name_of, steps in (("limit", limit), ("otherwise", otherwise)):
        if steps is not None and steps < 1:
            raise UserError(f"{name_of} must be at least 1, but is {steps}.")
    if name not in COMPILED and name != QUADRUPED:
        import_installed()  # which may register it
    if name in COMPILED:
        return _shortened([COMPILED[name]()], limit)
    on_cpu = jax.default_backend() == "cpu"
    if name == QUADRUPED and not (engine == "mujoco" or (engine == "auto" and on_cpu)):
        return _shortened([_compiled(body, integrator) for body in bodies], limit)

    def open_worlds(count: int) -> list[HostEnvironments]:
        if name == QUADRUPED:
            opened = [_simulated(body, integrator, count) for body in bodies]
        else:
            opened = [_gymnasium(name, count, limit or otherwise)]
        for world in opened:
            world.limit = min(world.limit, limit or world.limit)
        return opened

    return open_worlds


def _shortened(environments: Sequence[Environment], limit: int | None) -> list[Environment]:
    return [world._replace(limit=min(world.limit, limit or world.limit)) for world in environments]


def _gymnasium(name: str, count: int, otherwise: int | None) -> HostEnvironments:
    from tsar_jax.environments.gymnasium_env import GymnasiumEnvironments

    return GymnasiumEnvironments(name, count, otherwise=otherwise)


def _simulated(body: str, integrator: str, count: int) -> HostEnvironments:
    from tsar_jax.environments.quadruped import find_body
    from tsar_jax.environments.quadruped_mujoco import MujocoQuadrupeds

    return MujocoQuadrupeds([find_body(body, integrator)] * count)


def _compiled(body: str, integrator: str) -> Environment:
    from tsar_jax.environments.quadruped import find_body
    from tsar_jax.environments.quadruped_mjx import quadruped

    return quadruped(find_body(body, integrator))
