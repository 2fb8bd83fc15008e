"""ANML and OML: meta-learn what a network should learn, and when.

Beaulieu et al. (2020), arXiv 2002.09571; Javed and White (2019), arXiv 1905.12588.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from tsar_jax.errors import check_positive
from tsar_jax.networks import (
    ANML,
    OML,
    Network,
    Ungated,
)
from tsar_jax.registry import Registry
from tsar_jax.systems.episodic.system import EpisodicConfig, meta_training
from tsar_jax.training.system import System


class Model(NamedTuple):
    """A network that `anml_meta_train` trains.

    make: (config) -> network.
    plastic: names of the parameters that learn in the inner loop.
    """

    make: "Callable[[AnmlConfig], Network]"
    plastic: tuple[str, ...]


MODELS: Registry[Model] = Registry("model")
"""Networks by the name that a config gives them."""


def register_model(
    name: str, *, plastic: tuple[str, ...]
) -> "Callable[[Callable[[AnmlConfig], Network]], Callable[[AnmlConfig], Network]]":
    """Return a decorator that registers a function (config) -> network under a name.

    Args:
        name: the name, as config.model gives it.
        plastic: names of the parameters that learn in the inner loop.

    Raises:
        UserError: another module has taken the name.
    """

    def add(make: "Callable[[AnmlConfig], Network]") -> "Callable[[AnmlConfig], Network]":
        MODELS.register(name)(Model(make, plastic))
        return make

    return add


@dataclasses.dataclass(frozen=True)
class AnmlConfig(EpisodicConfig):
    """Settings of meta-training of ANML, OML, or ANML without its gate.

    Raises:
        UserError: a value is impossible.
    """

    model: str = "anml"
    """Network: anml; oml; ungated, which is ANML without its neuromodulatory network; or one that a
    module of yours registers (--modules)."""
    channels: int = 256
    """Channels of the prediction network's (or OML's) convolutions."""
    gate_channels: int = 112
    """Channels of ANML's neuromodulatory network."""
    hidden_features: int = 1024
    """Width of OML's hidden layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "channels", "gate_channels", "hidden_features")
        MODELS.find(self.model)


@register_model("anml", plastic=("trunk", "head"))
def make_anml(config: AnmlConfig) -> Network:
    """Return ANML: a classifier whose features another network gates."""
    return ANML(config.microbatch, config.channels, config.gate_channels, config.outputs)


@register_model("oml", plastic=("hidden", "head"))
def make_oml(config: AnmlConfig) -> Network:
    """Return OML: a representation that is constant in a lifetime, and two layers that learn."""
    return OML(config.microbatch, config.channels, config.hidden_features, config.outputs)


@register_model("ungated", plastic=("trunk", "head"))
def make_ungated(config: AnmlConfig) -> Network:
    """Return ANML's classifier without the gate."""
    return Ungated(config.microbatch, config.channels, config.outputs)


def make_network(config: AnmlConfig) -> Network:
    """Return the network that a config describes."""
    return MODELS.find(config.model).make(config)


def make_system(config: AnmlConfig) -> System:
    """Return meta-training as a system, whose data are those of `meta_training`."""
    return meta_training(config, make_network(config), MODELS.find(config.model).plastic)
