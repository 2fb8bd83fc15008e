"""The policy networks of Najarro and Risi (2020), and where their weights begin.

Dense layers without biases, tanh between them; before them, where the observation is an image, two
convolutions. Weights are [out, in], images [height, width, 3] of 0..1.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import UserError
from tsar_jax.plasticity.hebbian import Layers

HIDDEN = (128, 64)
IMAGE_SIDE = 84
KERNELS = ((3, 3, 3, 6), (5, 5, 6, 8))
"""Of the two convolutions, [height, width, in, out]."""
STRIDES = (1, 2)
FEATURES = 648
"""9 x 9 positions of 8 channels: what the convolutions make of an image."""


def forward(weights: Layers, inputs: jax.Array, *, bounded: bool) -> Layers:
    """Activities of every layer, the inputs [in] first, the outputs last.

    Hidden units are tanh; the outputs are linear, or tanh too if bounded.
    """
    chex.assert_rank(inputs, 1)
    activities = [inputs]
    for layer, w in enumerate(weights):
        drive = w @ activities[-1]
        linear = layer == len(weights) - 1 and not bounded
        activities.append(drive if linear else jnp.tanh(drive))
    return tuple(activities)


def image_features(kernels: Layers, image: jax.Array) -> jax.Array:
    """Features [648] of an image [84, 84, 3]: twice convolution, tanh and 2x2 max pool.

    kernels: see `KERNELS`.
    """
    chex.assert_shape(image, (IMAGE_SIDE, IMAGE_SIDE, 3))
    x = image
    for kernel, stride in zip(kernels, STRIDES, strict=True):
        x = jnp.tanh(convolve(x, kernel, stride))
        height, width = x.shape[0] // 2, x.shape[1] // 2
        x = x[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1).max((1, 3))
    return x.reshape(-1)


def convolve(image: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Without padding. image [H, W, C], kernel [k, k, C, D] -> [h, w, D]."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    out = lax.conv_general_dilated(
        image[None], kernel, (stride, stride), "VALID", dimension_numbers=dimensions
    )
    return out[0]


Initialiser = Callable[[jax.Array, tuple[int, int]], jax.Array]
"""(key, (out, in)) -> the weights [out, in] of one layer at the beginning of a lifetime."""


def uniform(bound: Callable[[int, int], float]) -> Initialiser:
    """Between -bound and bound, which depends on a layer's out and in."""

    def draw(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        limit = bound(*shape)
        return jax.random.uniform(key, shape, minval=-limit, maxval=limit)

    return draw


def sparse(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Normal of standard deviation .01, but 80 % of every unit's outgoing weights are zero."""
    value_key, order_key = jax.random.split(key)
    order = jax.random.permutation(
        order_key, jnp.broadcast_to(jnp.arange(shape[0])[:, None], shape), axis=0, independent=True
    )
    zeros = math.ceil(0.8 * shape[0])
    return jnp.where(order < zeros, 0.0, 0.01 * jax.random.normal(value_key, shape))


INITIALISERS: dict[str, Initialiser] = {
    "uni": uniform(lambda out, into: 0.1),
    "normal": lambda key, shape: 0.024 * jax.random.normal(key, shape),
    "xa_uni": uniform(lambda out, into: 0.3 * math.sqrt(6 / (into + out))),
    "ka_uni": uniform(lambda out, into: math.sqrt(6 / into)),
    "sparse": sparse,
    "uni_big": uniform(lambda out, into: 1.0),
    "xa_uni_big": uniform(lambda out, into: math.sqrt(6 / (into + out))),
    "ones": lambda key, shape: jnp.ones(shape),
    "zeros": lambda key, shape: jnp.zeros(shape),
    "default": uniform(lambda out, into: math.sqrt(1 / into)),
}
"""By the release's names: Glorot and Bengio's (xa) and He's (ka) uniform, PyTorch's (default)."""

COEVOLVED = "coevolve"
"""Weights at birth that are evolved along with the rule."""


def find_initialiser(name: str) -> Initialiser:
    """Raises UserError for an unknown name."""
    if name not in INITIALISERS:
        known = ", ".join([*INITIALISERS, COEVOLVED])
        raise UserError(f"There are no initial weights {name!r}: choose from {known}.")
    return INITIALISERS[name]


def layer_shapes(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(out, in) of every layer. sizes: units, the inputs first."""
    return [(out, into) for into, out in itertools.pairwise(sizes)]


def draw_layers(draw: Initialiser, key: jax.Array, sizes: Sequence[int]) -> Layers:
    """Every layer's weights, each from a key of its own."""
    shapes = layer_shapes(sizes)
    keys = jax.random.split(key, len(shapes))
    return tuple(draw(k, shape) for k, shape in zip(keys, shapes, strict=True))
