"""TSAR: a classifier whose every weight is regulated by the image it sees, and its regulator."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax

from tsar_jax.errors import UserError
from tsar_jax.models.layers import ALL_POOLED, IMAGE_CHANNELS, Trunk, dense, he_normal
from tsar_jax.models.networks import Network, Signals

Tree = Any

REGULATED = ("block_0", "block_1", "block_2", "head")


def regulate(params: Tree, gates: Tree) -> Tree:
    """Multiply the arrays that have a gate. gates: a tree like params that may lack branches."""
    return {
        name: value
        if name not in gates
        else regulate(value, gates[name])
        if isinstance(value, Mapping)
        else value * gates[name]
        for name, value in params.items()
    }


class Regulator(nn.Module):
    """One dense head per regulated kernel: codes [N, E] -> {layer: gates [N, *kernel]}.

    kernels: (layer, shape of its kernel). initial_bias: of every head; sigmoid(-8) = 0.0003
    silences nearly every synapse at first, 0 or more opens them.
    """

    kernels: tuple[tuple[str, tuple[int, ...]], ...]
    initial_bias: float

    @nn.compact
    def __call__(self, codes: jax.Array) -> dict[str, jax.Array]:
        bias = nn.initializers.constant(self.initial_bias)
        gates = {}
        for layer, shape in self.kernels:
            head = nn.Dense(math.prod(shape), kernel_init=he_normal, bias_init=bias, name=layer)
            gates[layer] = nn.sigmoid(head(codes)).reshape(-1, *shape)
        return gates


class TSAR(Network):
    """Beaulieu, Clune and Cheney (2021), arXiv 2108.12056. 590 M parameters at full width.

    An encoder (ANML's trunk) sees the image, the regulator's heads turn its code into one gate
    per weight, and the classifier (three blocks, all pooled, and an output layer) runs with its
    weights multiplied by the gates of that image.

    regulated: which of the classifier's kernels are, by layer.
    """

    channels: int = 112
    regulator_channels: int = 192
    classes: int = 1000
    initial_bias: float = -8.0
    regulated: tuple[str, ...] = REGULATED
    levels: ClassVar[tuple[str, ...]] = ("encoder", "regulator", "trunk", "head")
    storable: ClassVar[int] = 1  # an image's gates are as many as the classifier's weights

    def __post_init__(self) -> None:
        if not self.regulated:
            raise UserError("regulated is empty: name layers, or take the unregulated classifier.")
        for layer in self.regulated:
            if layer not in REGULATED:
                raise UserError(f"regulated names {layer!r}: choose from {', '.join(REGULATED)}.")
        super().__post_init__()

    def setup(self) -> None:
        width = self.channels
        shapes = {
            "block_0": (3, 3, IMAGE_CHANNELS, width),
            "block_1": (3, 3, width, width),
            "block_2": (3, 3, width, width),
            "head": (width, self.classes),
        }
        self.encoder = Trunk(self.regulator_channels, self.microbatch)
        self.regulator = Regulator(
            tuple((layer, shapes[layer]) for layer in REGULATED if layer in self.regulated),
            self.initial_bias,
        )
        self.trunk = Trunk(width, self.microbatch, pools=ALL_POOLED)
        self.head = dense(self.classes)

    def level(self, name: str, signals: Signals) -> Signals:
        """Images -> (images, codes) -> (images, gates) -> (features, output gates) -> logits."""
        if name == "encoder":
            return signals, self.encoder(signals)
        if name == "regulator":
            images, codes = signals
            return images, {layer: {"kernel": g} for layer, g in self.regulator(codes).items()}
        inputs, gates = signals
        if name == "trunk":
            output = gates.get("head", {})
            blocks = {layer: gate for layer, gate in gates.items() if layer != "head"}
            return _image_by_image(self.trunk, inputs, blocks), output
        return _image_by_image(self.head, inputs, gates)

    def spaces(self, images: jax.Array) -> dict[str, jax.Array]:
        """The encoder's code [N, E] and the regulated features [N, channels]."""
        gates = self.run(images, 0, 2)
        return {"code": self.encoder(images), "features": self.level("trunk", gates)[0]}


def _image_by_image(module: nn.Module, inputs: jax.Array, gates: Tree) -> jax.Array:
    """Run a part of the classifier, each row of inputs under its own gates."""
    if module.is_initializing() or not gates:
        return module(inputs)
    part, variables = module.unbind()

    def run(row: jax.Array, gates: Tree) -> jax.Array:
        return part.apply({"params": regulate(variables["params"], gates)}, row[None])[0]

    return jax.vmap(run)(inputs, gates)
