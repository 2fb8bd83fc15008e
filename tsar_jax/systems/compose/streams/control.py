"""Streams that are environments: those of this project that are compiled."""

from functools import partial

from tsar_jax.environments.registry import find_environments
from tsar_jax.environments.types import Environment, Variants
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.streams.types import STREAMS


def _compiled(name: str, config: ComposeConfig) -> Environment:
    """Return one of this project's compiled environments; the settings may shorten episodes."""
    found = find_environments(name, (), "auto", "RK4", config.episode_steps)
    assert isinstance(found, Variants)
    return found.one(0)


STREAMS.register("cart_pole")(partial(_compiled, "cart_pole"))
STREAMS.register("pendulum")(partial(_compiled, "pendulum"))
