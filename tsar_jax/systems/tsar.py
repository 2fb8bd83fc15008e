"""TSAR: meta-learn to regulate every weight of a classifier by what it sees.

Beaulieu, Clune and Cheney (2021), "Continual learning under domain transfer with sparse synaptic
bursting", arXiv 2108.12056.
"""

import dataclasses
from typing import Literal

from tsar_jax.errors import check_positive
from tsar_jax.models import ANML, TSAR, Network, Ungated
from tsar_jax.models.layers import ALL_POOLED
from tsar_jax.models.regulated import REGULATED
from tsar_jax.systems.episodic import EpisodicConfig, meta_training
from tsar_jax.training.system import System

INNER = ("trunk", "head")
"""What learns in the inner loop: the classifier."""

TRANSFERRED = {
    "tsar": ("regulator", "trunk", "head"),
    "anml": ("trunk", "head"),
    "unregulated": ("trunk", "head"),
}
"""What learns in a new domain, by treatment: for TSAR everything but the encoder."""


@dataclasses.dataclass(frozen=True)
class TsarConfig(EpisodicConfig):
    """Meta-training of TSAR or of a treatment to compare it with."""

    model: Literal["tsar", "anml", "unregulated"] = "tsar"
    """tsar; anml, which gates features; or unregulated, TSAR's classifier alone."""
    channels: int = 112
    """Channels of the classifier's convolutions."""
    regulator_channels: int = 192
    """Channels of TSAR's encoder, and of the neuromodulatory network of treatment anml."""
    initial_bias: float = -8.0
    """Bias that the regulator's heads begin with: -8 silences nearly every synapse ("growing
    sensors"), 0 and more opens them ("sculpting")."""
    regulated: tuple[str, ...] = REGULATED
    """Which of the classifier's kernels are regulated, by layer."""
    bfloat16: bool = False
    """Keep the regulator's heads, nearly all of TSAR's weights, and Adam's moments of them in
    bfloat16: half the memory, for accelerators."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "channels", "regulator_channels")
        if self.model == "tsar":
            make_network(self)


def make_network(config: TsarConfig) -> Network:
    """The network that a config describes. Raises UserError for layers that do not exist."""
    if config.model == "tsar":
        return TSAR(
            config.microbatch,
            config.channels,
            config.regulator_channels,
            config.outputs,
            config.initial_bias,
            config.regulated,
        )
    if config.model == "anml":
        return ANML(config.microbatch, config.channels, config.regulator_channels, config.outputs)
    return Ungated(config.microbatch, config.channels, config.outputs, ALL_POOLED)


def make_system(config: TsarConfig) -> System:
    """Meta-training as init, step and evaluate; data: see `meta_training`."""
    return meta_training(config, make_network(config), INNER, in_bfloat16(config))


def in_bfloat16(config: TsarConfig) -> tuple[str, ...]:
    """Return the names of the parameters that a config keeps in bfloat16."""
    if not config.bfloat16:
        return ()
    return tuple(f"regulator/{layer}/kernel" for layer in config.regulated)
