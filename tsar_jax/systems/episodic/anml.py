"""ANML and OML: meta-learn what a network should learn, and when.

Beaulieu et al. (2020), arXiv 2002.09571; Javed and White (2019), arXiv 1905.12588.
"""

import dataclasses
from typing import Literal

from tsar_jax.errors import check_positive
from tsar_jax.networks import (
    ANML,
    OML,
    Network,
    Ungated,
)
from tsar_jax.systems.episodic.system import EpisodicConfig, meta_training
from tsar_jax.training.system import System

PLASTIC = {"anml": ("trunk", "head"), "ungated": ("trunk", "head"), "oml": ("hidden", "head")}


@dataclasses.dataclass(frozen=True)
class AnmlConfig(EpisodicConfig):
    """Meta-training of ANML, OML or ANML without its gate."""

    model: Literal["anml", "oml", "ungated"] = "anml"
    """anml; oml; or ungated, which is ANML without its neuromodulatory network."""
    channels: int = 256
    """Channels of the prediction network's (or OML's) convolutions."""
    gate_channels: int = 112
    """Channels of ANML's neuromodulatory network."""
    hidden_features: int = 1024
    """Width of OML's hidden layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "channels", "gate_channels", "hidden_features")


def make_network(config: AnmlConfig) -> Network:
    """The network that a config describes."""
    if config.model == "anml":
        return ANML(config.microbatch, config.channels, config.gate_channels, config.outputs)
    if config.model == "oml":
        return OML(config.microbatch, config.channels, config.hidden_features, config.outputs)
    return Ungated(config.microbatch, config.channels, config.outputs)


def make_system(config: AnmlConfig) -> System:
    """Meta-training as init, step and evaluate; data: see `meta_training`."""
    return meta_training(config, make_network(config), PLASTIC[config.model])
