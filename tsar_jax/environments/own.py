"""This project's own environments by name; any other name is looked up in Gymnasium."""

from collections.abc import Callable

from tsar_jax.environments.car_racing.racing import car_racing
from tsar_jax.environments.classic import cart_pole, pendulum
from tsar_jax.environments.types import Environment
from tsar_jax.errors import pip

INSTALL = f'{pip()} install "tsar_jax[environments]"'
"""Installs what Gymnasium's environments and the quadruped need."""
CAR_RACING = "car_racing"
QUADRUPED = "quadruped"
COMPILED: dict[str, Callable[[], Environment]] = {
    "cart_pole": cart_pole,
    "pendulum": pendulum,
    CAR_RACING: car_racing,
}
