"""TSAR: a classifier whose every weight is regulated by its input image, and its regulator."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.devices import by_columns, by_platform
from tsar_jax.errors import UserError, check_known
from tsar_jax.networks.episodic import Activations, Network
from tsar_jax.networks.layers import ALL_POOLED, IMAGE_CHANNELS, Trunk, dense
from tsar_jax.ops.products import wide_affine

Tree = Any

REGULATED = ("block_0", "block_1", "block_2", "head")


@jax.custom_vjp
def gate_weights(weights: jax.Array, gates: jax.Array) -> jax.Array:
    """Return weights [*kernel] * gates [N, *kernel]: each image's weights [N, *kernel]."""
    return weights * gates


def _gate_forward(
    weights: jax.Array, gates: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return weights * gates, (weights, gates)


def _gate_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    weights, gates = saved
    # In 64 bits one of the two may be float32; each gradient has the dtype of its array.
    of_weights = sum_of_products(gradient, gates).astype(weights.dtype)
    return of_weights, (gradient * weights).astype(gates.dtype)


gate_weights.defvjp(_gate_forward, _gate_backward)


def sum_of_products(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the sum over images of a [N, ...] * b [N, ...].

    On a CPU image after image: XLA's own reduction over the leading axis takes some thirty times
    as long as reading the arrays does.
    """

    def one_by_one(a: jax.Array, b: jax.Array) -> jax.Array:
        def add(total: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            return total + row[0] * row[1], None

        start = jnp.zeros(a.shape[1:], jnp.result_type(a, b))
        return lax.scan(add, start, (a, b))[0]

    return by_platform(a, b, cpu=one_by_one, default=lambda a, b: (a * b).sum(0))


def regulate(params: Tree, gates: Tree) -> tuple[Tree, Tree]:
    """Return each image's own parameters, under its gates, and which leaves differ between images.

    Args:
        params: nested dictionaries of arrays.
        gates: a tree like params that may lack branches, leaves [N, *kernel].

    Returns:
        A tree like params, its regulated leaves [N, *kernel] and the others unchanged, and the axis
        of each that counts images: 0, or None.
    """
    regulated, axes = {}, {}
    for name, value in params.items():
        if name not in gates:
            regulated[name], axes[name] = value, jax.tree.map(lambda _: None, value)
        elif isinstance(value, Mapping):
            regulated[name], axes[name] = regulate(value, gates[name])
        else:
            regulated[name], axes[name] = gate_weights(value, gates[name]), 0
    return regulated, axes


class Regulator(nn.Module):
    """One dense head per regulated kernel: codes [N, E] -> {layer: gates [N, *kernel]}.

    kernels: (layer, shape of its kernel). initial_bias: of every head; sigmoid(-8) = 0.0003
    silences nearly every synapse at first, 0 or more opens them. divided: whether each device
    computes its own columns of a head.
    """

    kernels: tuple[tuple[str, tuple[int, ...]], ...]
    initial_bias: float
    divided: bool = False

    @nn.compact
    def __call__(self, codes: jax.Array) -> dict[str, jax.Array]:
        heads = [
            WideDense(math.prod(shape), self.initial_bias, name=layer)
            for layer, shape in self.kernels
        ]
        drives: Iterable[jax.Array] = (head(codes) for head in heads)
        if self.divided:
            kernels, biases = zip(*(head.weights(codes.shape[-1]) for head in heads), strict=True)
            drives = by_columns(wide_affine, codes, kernels, biases)
        return {
            layer: nn.sigmoid(drive).reshape(-1, *shape)
            for (layer, shape), drive in zip(self.kernels, drives, strict=True)
        }


class WideDense(nn.Module):
    """A dense layer of far more outputs than inputs: [N, K] -> [N, features]."""

    features: int
    initial_bias: float

    @nn.compact
    def weights(self, inputs: int) -> tuple[jax.Array, jax.Array]:
        """Return kernel [inputs, features] and bias [features]."""
        kernel = self.param("kernel", _he_normal_by_rows, (inputs, self.features))
        bias = self.param("bias", nn.initializers.constant(self.initial_bias), (self.features,))
        return kernel, bias

    def __call__(self, x: jax.Array) -> jax.Array:
        return wide_affine(x, *self.weights(x.shape[-1]))


def _he_normal_by_rows(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Draw He normal weights row by row: the random bits of all would take several times the
    memory.
    """
    scale = math.sqrt(2 / shape[0])
    keys = jax.random.split(key, shape[0])
    return lax.map(lambda k: scale * jax.random.normal(k, shape[1:]), keys)


class TSAR(Network):
    """Beaulieu, Clune and Cheney (2021), arXiv 2108.12056. 590 M parameters at full width.

    An encoder (ANML's trunk) encodes the image, the regulator's heads turn its code into one gate
    per weight, and the classifier (three blocks, all pooled, and an output layer) runs with its
    weights multiplied by the gates of that image.

    regulated: names of the classifier's regulated layers.
    divided: whether the regulator's heads are divided among the devices.
    """

    channels: int = 112
    regulator_channels: int = 192
    classes: int = 1000
    initial_bias: float = -8.0
    regulated: tuple[str, ...] = REGULATED
    divided: bool = False
    stages: ClassVar[tuple[str, ...]] = ("encoder", "regulator", "trunk", "head")
    storable: ClassVar[int] = 1  # an image has as many gates as the classifier has weights

    def __post_init__(self) -> None:
        if not self.regulated:
            raise UserError("regulated is empty: name layers, or take the unregulated classifier.")
        for layer in self.regulated:
            check_known("layer to regulate", layer, REGULATED)
        super().__post_init__()

    @property
    def is_divided(self) -> bool:
        """Whether its parameters are divided among several devices."""
        return self.divided

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
            self.divided,
        )
        self.trunk = Trunk(width, self.microbatch, pools=ALL_POOLED)
        self.head = dense(self.classes)

    def stage(self, name: str, activations: Activations) -> Activations:
        """Run a stage: images -> (images, codes) -> (images, gates) -> (features, output gates)
        -> logits.
        """
        if name == "encoder":
            return activations, self.encoder(activations)
        if name == "regulator":
            images, codes = activations
            return images, {layer: {"kernel": g} for layer, g in self.regulator(codes).items()}
        inputs, gates = activations
        if name == "trunk":
            output = gates.get("head", {})
            blocks = {layer: gate for layer, gate in gates.items() if layer != "head"}
            return _image_by_image(self.trunk, inputs, blocks), output
        return _image_by_image(self.head, inputs, gates)

    def representations(self, images: jax.Array) -> dict[str, jax.Array]:
        """Return the encoder's code [N, E] and the regulated features [N, channels]."""
        gates = self.run(images, 0, 2)
        return {"code": self.encoder(images), "features": self.stage("trunk", gates)[0]}


def _image_by_image(module: nn.Module, inputs: jax.Array, gates: Tree) -> jax.Array:
    """Run a part of the classifier, each row of inputs under its own gates."""
    if module.is_initializing() or not gates:
        return module(inputs)
    part, variables = module.unbind()
    params, axes = regulate(variables["params"], gates)

    def run(row: jax.Array, params: Tree) -> jax.Array:
        return part.apply({"params": params}, row[None])[0]

    return jax.vmap(run, (0, axes))(inputs, params)
