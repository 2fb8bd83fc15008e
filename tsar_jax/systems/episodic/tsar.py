"""TSAR: meta-learn to regulate every weight of a classifier by what it sees.

Beaulieu, Clune and Cheney (2021), "Continual learning under domain transfer with sparse synaptic
bursting", arXiv 2108.12056.
"""

import dataclasses
from typing import Literal

from tsar_jax.errors import UserError, check_known, check_positive
from tsar_jax.networks import (
    ANML,
    TSAR,
    Network,
    Ungated,
    params_like,
)
from tsar_jax.networks.layers import ALL_POOLED
from tsar_jax.networks.regulated import REGULATED
from tsar_jax.plasticity.masks import leaf_names, mask
from tsar_jax.systems.episodic.release import release_names
from tsar_jax.systems.episodic.system import EpisodicConfig, Storage, meta_training
from tsar_jax.training.config import earlier
from tsar_jax.training.system import System

INNER = ("trunk", "head")
"""Parameters that learn in the inner loop: the classifier's."""

TRANSFERRED = {
    "tsar": ("regulator", "trunk", "head"),
    "anml": ("neuromodulator/gate", "trunk", "head"),
    "unregulated": ("trunk", "head"),
}
"""Parameters that learn in a new domain as published (rln 6), by model: all but the first trunk,
which is TSAR's encoder and, in model anml, the neuromodulatory network's."""

CHANNELS = {"tsar": 112, "anml": 256, "unregulated": 112}
"""Published channels of the classifier's convolutions, by model; unregulated is TSAR's
classifier."""


@dataclasses.dataclass(frozen=True)
class TsarConfig(EpisodicConfig):
    """Settings of meta-training of TSAR, or of a baseline to compare it with.

    Raises:
        UserError: a value is impossible.
    """

    model: Literal["tsar", "anml", "unregulated"] = "tsar"
    """Network: tsar; anml, which gates features; or unregulated, TSAR's classifier alone."""
    channels: int | None = None
    """Channels of the classifier's convolutions. None: as published, 256 for model anml and 112
    for the others."""
    regulator_channels: int = 192
    """Channels of TSAR's encoder, and of the neuromodulatory network of model anml."""
    initial_bias: float = -8.0
    """Initial bias of the regulator's heads: -8 silences nearly every synapse ("growing
    sensors"), 0 and more opens them ("sculpting")."""
    gate_bias: float | None = dataclasses.field(default=None, metadata=earlier(0.0))
    """Initial bias of the gate of model anml. None: initial_bias, as published."""
    regulated: tuple[str, ...] = REGULATED
    """Layers of the classifier whose kernels are regulated."""
    bfloat16: bool = False
    """Whether the regulator's heads, nearly all of TSAR's weights, and Adam's moments of them are
    kept in bfloat16: half the memory, for accelerators."""

    divide_heads: bool = dataclasses.field(default=False, metadata=earlier(False))
    """Whether the regulator's heads are divided among the devices, each of which keeps and updates
    a share of their outputs' weights, with Adam's moments of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("model", self.model, CHANNELS)
        if self.divide_heads and (self.model != "tsar" or self.seeds > 1 or self.episodes > 1):
            raise UserError(
                "divide_heads divides one TSAR among the devices: leave it out, or take model "
                "tsar, one seed, and one episode a step."
            )
        check_positive(self, "regulator_channels")
        if self.channels is not None:
            check_positive(self, "channels")
        if self.model == "tsar":
            make_network(self)


def classifier_channels(config: TsarConfig) -> int:
    """Return the channels of the classifier's convolutions, as published where config has None."""
    return CHANNELS[config.model] if config.channels is None else config.channels


def initial_gate_bias(config: TsarConfig) -> float:
    """Return the initial bias of the gate of model anml."""
    return config.initial_bias if config.gate_bias is None else config.gate_bias


def effective_config(config: TsarConfig) -> TsarConfig:
    """Return a config of the same network with values in place of None.

    Two configs of one network, such as one by an earlier version, may differ; their effective
    configs do not.

    Returns:
        The config with the classifier's channels, and with a bias of the gate where the model has
        a gate, None where it has none.
    """
    return dataclasses.replace(
        config,
        channels=classifier_channels(config),
        gate_bias=initial_gate_bias(config) if config.model == "anml" else None,
    )


def make_network(config: TsarConfig) -> Network:
    """Return the network that a config describes.

    Raises:
        UserError: the config names layers that do not exist.
    """
    channels = classifier_channels(config)
    if config.model == "tsar":
        return TSAR(
            config.microbatch,
            channels,
            config.regulator_channels,
            config.outputs,
            config.initial_bias,
            config.regulated,
            config.divide_heads,
        )
    if config.model == "anml":
        return ANML(
            config.microbatch,
            channels,
            config.regulator_channels,
            config.outputs,
            initial_gate_bias(config),
        )
    return Ungated(config.microbatch, channels, config.outputs, ALL_POOLED)


def plastic_after(config: TsarConfig, rln: int) -> tuple[str, ...]:
    """Return the names of the parameters that learn where the first `rln` layers do not.

    Layers are counted as the releases do, a convolution, a norm and a dense layer as one each. In
    TSAR the encoder has six, the regulator's heads four and the classifier seven; in ANML the
    neuromodulatory network's trunk has six, the gate one and the classifier seven.

    Raises:
        UserError: the model is in no release, or has no such number of layers.
    """
    if config.model == "unregulated":
        raise UserError(
            "rln counts the layers of a release, and model unregulated is in none: name what "
            "learns in plastic."
        )
    names = release_names(config.model)
    layers = len(names) // 2  # weights and biases, or gains and offsets
    if not 0 <= rln < layers:
        raise UserError(
            f"rln must leave one of the {layers} layers of model {config.model} to learn: choose "
            f"from 0 to {layers - 1}, not {rln}."
        )
    shapes = params_like(make_network(config))
    present = leaf_names(shapes)
    return tuple(name for name in names[2 * rln :] if name in present)


def learns_as_published(config: TsarConfig, plastic: tuple[str, ...]) -> bool:
    """Return whether these names, in whatever words, mean the parameters that learn as published.

    Raises:
        UserError: no parameter has such a name.
    """
    shapes = params_like(make_network(config))
    return bool(mask(shapes, plastic) == mask(shapes, TRANSFERRED[config.model]))


def make_system(config: TsarConfig) -> System:
    """Return meta-training as a system, whose data are those of `meta_training`."""
    return meta_training(config, make_network(config), INNER, storage(config))


def storage(config: TsarConfig) -> Storage:
    """Return how a config's parameters are kept."""
    kernels = tuple(f"regulator/{layer}/kernel" for layer in config.regulated)
    biases = tuple(f"regulator/{layer}/bias" for layer in config.regulated)
    return Storage(
        in_bfloat16=kernels if config.bfloat16 else (),
        divided=(*kernels, *biases) if config.divide_heads else (),
    )
