"""This project's own environments by name; any other name is looked up in Gymnasium."""

from collections.abc import Callable

from tsar_jax.environments.car_racing.racing import car_racing
from tsar_jax.environments.classic import cart_pole, pendulum
from tsar_jax.environments.types import Environment
from tsar_jax.errors import pip
from tsar_jax.registry import Registry

INSTALL = f'{pip()} install "tsar_jax[environments]"'
"""Command that installs the packages of Gymnasium's environments and the quadruped."""
CAR_RACING = "car_racing"
QUADRUPED = "quadruped"
COMPILED: Registry[Callable[[], Environment]] = Registry("environment")
"""Functions that make a compiled environment."""
COMPILED.register("cart_pole")(cart_pole)
COMPILED.register("pendulum")(pendulum)
COMPILED.register(CAR_RACING)(car_racing)
