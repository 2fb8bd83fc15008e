"""Environments by name: which are compiled, and which are simulated outside JAX."""

from collections.abc import Callable, Sequence

import jax

from tsar_jax.environments.car_racing.racing import car_racing
from tsar_jax.environments.classic import cart_pole, pendulum
from tsar_jax.environments.types import Environment, HostEnvironments
from tsar_jax.errors import check_known

CAR_RACING = "car_racing"
COMPILED: dict[str, Callable[[], Environment]] = {
    "cart_pole": cart_pole,
    "pendulum": pendulum,
    CAR_RACING: car_racing,
}
QUADRUPED = "quadruped"
ENGINES = ("auto", "mujoco", "mjx")

OpenWorlds = Callable[[int], list[HostEnvironments]]
"""(count) -> `count` copies of every environment in lockstep."""


def find_environments(
    name: str, bodies: Sequence[str], engine: str, integrator: str
) -> list[Environment] | OpenWorlds:
    """Compiled environments, one for every body; or a function that opens simulators.

    name: one of `COMPILED`, quadruped, or what gymnasium registers. The rest is the quadruped's.
    Raises UserError for an unknown engine, body or integrator, or a missing package; for an
    environment that gymnasium does not know, when it is opened.
    """
    check_known("engine", engine, ENGINES)
    if name in COMPILED:
        return [COMPILED[name]()]
    if name != QUADRUPED:
        return lambda count: [_gymnasium(name, count)]
    on_cpu = jax.default_backend() == "cpu"
    if engine == "mujoco" or (engine == "auto" and on_cpu):
        return lambda count: [_simulated(body, integrator, count) for body in bodies]
    return [_compiled(body, integrator) for body in bodies]


def _gymnasium(name: str, count: int) -> HostEnvironments:
    from tsar_jax.environments.gymnasium_env import GymnasiumEnvironments

    return GymnasiumEnvironments(name, count)


def _simulated(body: str, integrator: str, count: int) -> HostEnvironments:
    from tsar_jax.environments.quadruped import find_body
    from tsar_jax.environments.quadruped_mujoco import MujocoQuadrupeds

    return MujocoQuadrupeds([find_body(body, integrator)] * count)


def _compiled(body: str, integrator: str) -> Environment:
    from tsar_jax.environments.quadruped import find_body
    from tsar_jax.environments.quadruped_mjx import quadruped

    return quadruped(find_body(body, integrator))
