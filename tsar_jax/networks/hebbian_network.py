"""The policy networks of Najarro and Risi (2020), and their initial weights.

Dense layers without biases, tanh between them; before them, where the observation is an image, two
convolutions. Weights are [out, in], images [height, width, 3] of 0..1.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import UserError, check_known
from tsar_jax.networks.types import LayerArrays

HIDDEN = (128, 64)
IMAGE_SIDE = 84
KERNELS = ((3, 3, 3, 6), (5, 5, 6, 8))
"""Shapes of the two convolutions, [height, width, in, out]."""
STRIDES = (1, 2)
FEATURES = 648
"""Number of features of an image: 9 x 9 positions of 8 channels."""


def forward(weights: LayerArrays, inputs: jax.Array, *, bounded: bool) -> LayerArrays:
    """Return the activities of every layer, the inputs [in] first, the outputs last.

    Hidden units are tanh; the outputs are linear, or tanh too if bounded.
    """
    chex.assert_rank(inputs, 1)
    activities = [inputs]
    for layer, w in enumerate(weights):
        drive = w @ activities[-1]
        linear = layer == len(weights) - 1 and not bounded
        activities.append(drive if linear else jnp.tanh(drive))
    return tuple(activities)


def image_features(kernels: LayerArrays, image: jax.Array) -> jax.Array:
    """Return features [648] of an image [84, 84, 3]: twice convolution, tanh and 2x2 max pool.

    kernels: see `KERNELS`.
    """
    chex.assert_shape(image, (IMAGE_SIDE, IMAGE_SIDE, 3))
    x = jnp.moveaxis(image, -1, 0)
    for kernel, stride in zip(kernels, STRIDES, strict=True):
        # Without this barrier XLA recomputes a pixel for every shift that contains it.
        x = lax.optimization_barrier(x)
        # tanh is monotonic, so it is computed after the pool, for a quarter of the values.
        x = jnp.tanh(max_pool(convolve(x, kernel, stride)))
    return jnp.moveaxis(x, 0, -1).reshape(-1)


def convolve(planes: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Return a convolution without padding. planes [C, H, W], kernel [k, k, C, D] -> [D, h, w].

    Shifted planes times one matrix: on a CPU several times faster than XLA's convolution, and with
    a kernel for each agent a product of batches of matrices on an accelerator.
    """
    size, _, channels, out = kernel.shape
    height, width = ((length - size) // stride + 1 for length in planes.shape[1:])
    shifted = [
        planes[:, y : y + stride * height : stride, x : x + stride * width : stride]
        for y in range(size)
        for x in range(size)
    ]
    patches = jnp.stack(shifted).reshape(size * size * channels, height * width)
    return (kernel.reshape(-1, out).T @ patches).reshape(out, height, width)


def max_pool(planes: jax.Array) -> jax.Array:
    """Return the largest of every 2x2 pixels, without a last odd row or column. planes [C, H,
    W].
    """
    height, width = (2 * (length // 2) for length in planes.shape[1:])
    corners = [planes[:, y:height:2, x:width:2] for y in (0, 1) for x in (0, 1)]
    return functools.reduce(jnp.maximum, corners)


Initialiser = Callable[[jax.Array, tuple[int, int]], jax.Array]
"""(key, (out, in)) -> the weights [out, in] of one layer at the beginning of a lifetime."""


def uniform(bound: Callable[[int, int], float]) -> Initialiser:
    """Return an initialiser between -bound and bound, which depends on a layer's out and in."""

    def draw(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        limit = bound(*shape)
        return jax.random.uniform(key, shape, minval=-limit, maxval=limit)

    return draw


def sparse(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Draw normal weights of standard deviation .01, with 80 % of every unit's outgoing ones
    zero.
    """
    value_key, order_key = jax.random.split(key)
    order = jax.random.permutation(
        order_key, jnp.broadcast_to(jnp.arange(shape[0])[:, None], shape), axis=0, independent=True
    )
    zeros = math.ceil(0.8 * shape[0])
    return jnp.where(order < zeros, 0.0, 0.01 * jax.random.normal(value_key, shape))


SLOPE = 3
"""Slope below 0 of the leaky units that the release's Kaiming uniform weights are for. It makes the
bound sqrt(.6 / fan in), where rectified units would have sqrt(6 / fan in).
"""

INITIALISERS: dict[str, Initialiser] = {
    "uni": uniform(lambda out, into: 0.1),
    "normal": lambda key, shape: 0.024 * jax.random.normal(key, shape),
    "xa_uni": uniform(lambda out, into: 0.3 * math.sqrt(6 / (into + out))),
    "ka_uni": uniform(lambda out, into: math.sqrt(6 / ((1 + SLOPE**2) * into))),
    "sparse": sparse,
    "uni_big": uniform(lambda out, into: 1.0),
    "xa_uni_big": uniform(lambda out, into: math.sqrt(6 / (into + out))),
    "ones": lambda key, shape: jnp.ones(shape),
    "zeros": lambda key, shape: jnp.zeros(shape),
    "default": uniform(lambda out, into: math.sqrt(1 / into)),
}
"""Initialisers by the release's names: Glorot and Bengio's (xa) and He's (ka) uniform, PyTorch's
(default).

Runs evolved with ka_uni by earlier versions of this project had sqrt(6 / fan in) as its bound.
"""

DISTRIBUTIONS: dict[str, Callable[[jax.Array, tuple[int, ...]], jax.Array]] = {
    "normal": jax.random.normal,
    "uniform": lambda key, shape: jax.random.uniform(key, shape, minval=-1.0),
}
"""Initial distributions of evolved parameters, (key, shape) -> array, by the release's names."""

COEVOLVED = "coevolve"
"""Name of initial weights that are evolved along with the rule."""


def find_initialiser(name: str) -> Initialiser:
    """Return the initialiser of a name.

    Raises:
        UserError: the name is unknown, or `COEVOLVED`, which draws nothing.
    """
    if name not in INITIALISERS:
        check_known("kind of initial weights", name, (*INITIALISERS, COEVOLVED))
        raise UserError(f"Initial weights {name!r} are evolved, not drawn: choose another kind.")
    return INITIALISERS[name]


def layer_shapes(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return (out, in) of every layer. sizes: units, the inputs first."""
    return [(out, into) for into, out in itertools.pairwise(sizes)]


def draw_layers(draw: Initialiser, key: jax.Array, sizes: Sequence[int]) -> LayerArrays:
    """Draw every layer's weights, each from a key of its own."""
    shapes = layer_shapes(sizes)
    keys = jax.random.split(key, len(shapes))
    return tuple(draw(k, shape) for k, shape in zip(keys, shapes, strict=True))
