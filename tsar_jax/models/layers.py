"""Convolution, per-image normalisation and pooling, each in the form its device runs fastest."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.devices import by_platform

Tree = Any

NORM_EPSILON = 1e-5

# Channels under the first kernels; grey images stand for three equal ones.
IMAGE_CHANNELS = 3

# Which of a trunk's blocks end in a max pool: in ANML's networks, and in TSAR's classifier.
LAST_UNPOOLED = (True, True, False)
ALL_POOLED = (True, True, True)

# He et al. (2015): standard deviation sqrt(2 / fan_in), not truncated, as the releases draw it.
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of number that is at most limit."""
    return next(size for size in range(min(limit, number), 0, -1) if number % size == 0)


def in_microbatches(
    layer: Callable[[Tree, Tree], jax.Array], params: Tree, x: Tree, size: int | None
) -> jax.Array:
    """layer(params, x) over the leading axes of x, up to `size` rows at a time; None: all at once.

    The backward pass recomputes what a microbatch needs, so that intermediate arrays never
    leave a CPU's cache. The microbatch is the largest divisor of the batch up to `size`.
    """
    rows = jax.tree.leaves(x)[0].shape[0]
    if size is None or rows <= size:
        return layer(params, x)
    chunk = largest_divisor(rows, size)
    chunks = jax.tree.map(lambda a: a.reshape(rows // chunk, chunk, *a.shape[1:]), x)
    outputs = lax.map(jax.checkpoint(lambda c: layer(params, c)), chunks)
    return outputs.reshape(rows, *outputs.shape[2:])


def conv3x3(
    images: jax.Array, kernel: jax.Array, stride: int = 1, microbatch: int | None = None
) -> jax.Array:
    """3x3 convolution without padding. images [N, H, W, C], kernel [3, 3, C, D] -> [N, h, w, D].

    Images of one channel are grey: under a kernel of several input channels they stand for
    that many equal channels, whose sum is one channel under the summed kernel. microbatch:
    images at a time on a CPU (None: all), see `in_microbatches`. The result has the dtype that
    theirs promote to, for XLA's convolution takes no two: in 64 bits, kernels are float64 where not
    made otherwise, and images float32.
    """
    chex.assert_rank([images, kernel], 4)
    dtype = jnp.result_type(images, kernel)
    images, kernel = images.astype(dtype), kernel.astype(dtype)
    if images.shape[-1] == 1:
        kernel = kernel.sum(2, keepdims=True)
    chex.assert_equal(images.shape[-1], kernel.shape[2])
    return by_platform(
        images,
        kernel,
        cpu=lambda x, k: in_microbatches(
            lambda k, x: _conv_as_product(x, k, stride), k, x, microbatch
        ),
        default=lambda x, k: lax.conv_general_dilated(
            x, k, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
    )


def _conv_as_product(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The same convolution as nine shifted slices times one matrix: XLA's CPU products are fast."""
    return product(_patches(images, stride), kernel.reshape(-1, kernel.shape[-1]))


@jax.custom_vjp
def product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """x [.., K] @ matrix [K, D], with a gradient that never transposes anything as large as matrix.

    JAX's own gradient makes matrix's as [D, K] and turns it over; a CPU takes longer over the
    second derivative of that than over the products.
    """
    return x @ matrix


def _product_forward(
    x: jax.Array, matrix: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ matrix, (x, matrix)


def _product_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, matrix = saved
    places = tuple(range(x.ndim - 1))
    # In 64 bits one of the two may be float32; a gradient has the dtype of what it is of.
    return (
        jnp.tensordot(gradient, matrix, axes=((-1,), (1,))).astype(x.dtype),
        jnp.tensordot(x, gradient, axes=(places, places)).astype(matrix.dtype),
    )


product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def wide_affine(x: jax.Array, matrix: jax.Array, bias: jax.Array) -> jax.Array:
    """x [N, K] @ matrix [K, D] + bias [D], for few rows and a matrix that no cache holds.

    A matrix in bfloat16 is multiplied so, and summed in the precision of x.

    Forward and backward have the forms in which XLA's CPU backend reads the matrix once and as it
    lies; it takes up to three times as long over x @ matrix itself, and up to thirty over a sum
    along the leading axis.
    """
    # The barriers here and below keep the compiler from rewriting one form into another.
    columns = lax.optimization_barrier(x.T.astype(matrix.dtype))
    return _dot(columns, matrix, 0, 0, x.dtype) + bias.astype(x.dtype)


def _dot(a: jax.Array, b: jax.Array, axis: int, other: int, dtype: Any) -> jax.Array:
    """Product of two matrices over an axis of each."""
    return lax.dot_general(a, b, (((axis,), (other,)), ((), ())), preferred_element_type=dtype)


def _wide_forward(
    x: jax.Array, matrix: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return wide_affine(x, matrix, bias), (x, matrix, bias)


def _wide_backward(
    saved: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, matrix, bias = saved
    kind = matrix.dtype
    gradient = computed_once(gradient)
    ones = lax.optimization_barrier(jnp.ones(x.shape[0], x.dtype))
    columns = lax.optimization_barrier(_dot(matrix, gradient.astype(kind), 1, 1, x.dtype))
    # An optimiser could not change the matrix in place if its last use might come after: so let
    # the matrix's gradient depend on it.
    rows = (x + 0 * columns.T).astype(kind)
    of_matrix = _dot(rows, gradient.astype(kind), 0, 0, kind)
    return columns.T, of_matrix, (ones @ gradient).astype(bias.dtype)


def computed_once(x: jax.Array) -> jax.Array:
    """x, on a CPU in a form that XLA cannot fuse into what reads it.

    A fusion with a larger result, such as an outer product, would compute x anew for every
    element of that; XLA's own barrier is gone before it fuses. A NaN at the beginning of x counts
    for all of it.
    """

    def branch(x: jax.Array) -> jax.Array:
        first = x.reshape(-1)[0]
        return lax.cond(first == first, lambda x: x, lambda x: jnp.full_like(x, jnp.nan), x)

    return by_platform(x, cpu=branch, default=lambda x: x)


wide_affine.defvjp(_wide_forward, _wide_backward)


def _patches(images: jax.Array, stride: int = 1) -> jax.Array:
    """What a 3x3 kernel sees at each place: [N, H, W, C] -> [N, h, w, 9 C], row by row."""
    height, width = ((size - 3) // stride + 1 for size in images.shape[1:3])
    return jnp.concatenate(
        [
            images[
                :,
                row : row + stride * (height - 1) + 1 : stride,
                column : column + stride * (width - 1) + 1 : stride,
            ]
            for row in range(3)
            for column in range(3)
        ],
        axis=-1,
    )


def norm_per_image(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    """Normalise each channel of each image over its height and width. x [N, H, W, C].

    Mean and biased variance, epsilon 1e-5: what batch normalisation does to a batch of one,
    which is how the releases of ANML and TSAR call it.
    """
    chex.assert_equal_shape([scale, offset])
    centred = x - x.mean((1, 2), keepdims=True)
    variance = jnp.square(centred).mean((1, 2), keepdims=True)
    return centred * lax.rsqrt(variance + NORM_EPSILON) * scale + offset


@jax.custom_vjp
def max_pool_2x2(x: jax.Array) -> jax.Array:
    """2x2 max pool, odd last rows and columns dropped. [N, H, W, C] -> [N, H // 2, W // 2, C].

    The gradient goes to the first of equal maxima. It is found by comparing the four cells, not
    by looking for the maximum among them: XLA may recompute them with other rounding, and then
    none would be equal to it.
    """
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _corners(x: jax.Array) -> list[jax.Array]:
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]


def _winner(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """Which of four is the largest, 0..3; the first of equals."""
    upper = jnp.maximum(a, b) >= jnp.maximum(c, d)
    return jnp.where(upper, jnp.where(a >= b, 0, 1), jnp.where(c >= d, 2, 3))


def _pool_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return max_pool_2x2(x), x


def _pool_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    n, rows, columns, channels = x.shape
    height, width = rows // 2, columns // 2
    winner = _winner(*_corners(x))
    cell = jnp.arange(4).reshape(1, 1, 2, 1, 2, 1)
    spread = jnp.where(winner[:, :, None, :, None] == cell, gradient[:, :, None, :, None], 0)
    spread = spread.reshape(n, 2 * height, 2 * width, channels)
    return (jnp.pad(spread, ((0, 0), (0, rows - 2 * height), (0, columns - 2 * width), (0, 0))),)


max_pool_2x2.defvjp(_pool_forward, _pool_backward)


@jax.custom_vjp
def _largest_product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """The largest of four products: x [.., 4, K], matrix [K, D] -> [.., D].

    The gradient goes to the first of equal maxima, as in `max_pool_2x2`. Written out because
    JAX's own gradient of a product transposes what belongs to the outputs, D wide, before it
    multiplies; here K is the narrow side.
    """
    return (x @ matrix).max(-2)


def _largest_forward(
    x: jax.Array, matrix: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _largest_product(x, matrix), (x, matrix)


def _largest_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, matrix = saved
    products = x @ matrix
    winner = _winner(*(products[..., cell, :] for cell in range(4)))
    spread = jnp.where(winner[..., None, :] == jnp.arange(4)[:, None], gradient[..., None, :], 0)
    places = tuple(range(x.ndim - 1))
    of_matrix = jnp.tensordot(x, spread, axes=(places, places))
    return (spread @ matrix.T).astype(x.dtype), of_matrix.astype(matrix.dtype)


_largest_product.defvjp(_largest_forward, _largest_backward)


def image_block(
    images: jax.Array,
    kernel: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    microbatch: int | None,
) -> jax.Array:
    """Convolution, per-image norm, ReLU and 2x2 max pool of images: `ConvBlock`'s first, on a CPU.

    images [N, H, W, C], kernel [3, 3, 3 or C, D] -> [N, h // 2, w // 2, D]. With so few channels
    the output is many times larger than the input, and passes over it would take most of the
    time. So the norm's variance is k' S k, S being the covariance of the image's patches; and since
    the norm is monotone in each channel, pooling comes first: then norm and ReLU see a quarter
    of the values.
    """
    if images.shape[-1] == 1:
        kernel = kernel.sum(2, keepdims=True)
    chex.assert_equal(images.shape[-1], kernel.shape[2])
    patches = _patches(images)
    # The norm takes the mean away: do so first, where it costs little and rounds least.
    patches = patches - patches.mean((1, 2), keepdims=True)
    n, height, width, taps = patches.shape
    flat = patches.reshape(n, height * width, taps)
    covariance = jnp.einsum("npa,npb->nab", flat, flat) / (height * width)
    height, width = height // 2, width // 2
    cells = patches[:, : 2 * height, : 2 * width].reshape(n, height, 2, width, 2, taps)
    cells = cells.transpose(0, 1, 3, 2, 4, 5).reshape(n, height, width, 4, taps)

    def block(params: Tree, x: Tree) -> jax.Array:
        kernel, scale, offset = params
        cells, covariance = x
        # A negative gain turns the largest into the smallest: give its sign to the kernel.
        sign = jnp.where(scale < 0, -1, 1).astype(scale.dtype)
        matrix = kernel.reshape(-1, kernel.shape[-1]) * sign
        variance = jnp.einsum("ad,nab,bd->nd", matrix, covariance, matrix)
        gain = (sign * scale) * lax.rsqrt(variance + NORM_EPSILON)
        return nn.relu(_largest_product(cells, matrix) * gain[:, None, None] + offset)

    return in_microbatches(block, (kernel, scale, offset), (cells, covariance), microbatch)


class ConvBlock(nn.Module):
    """3x3 convolution, per-image norm, ReLU and, where asked for, a 2x2 max pool.

    The convolution's bias exists for the releases' sake: the norm subtracts it again, so it is
    left out of the computation and its gradient is exactly zero rather than rounding noise,
    which Adam would blow up to whole steps.
    """

    features: int
    pool: bool
    in_channels: int
    microbatch: int | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", he_normal, (3, 3, self.in_channels, self.features))
        self.param("bias", nn.initializers.zeros, (self.features,))
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        offset = self.param("offset", nn.initializers.zeros, (self.features,))

        def block(x: jax.Array, kernel: jax.Array, *norm: jax.Array) -> jax.Array:
            x = conv3x3(x, kernel, microbatch=self.microbatch)
            x = nn.relu(norm_per_image(x, *norm))
            return max_pool_2x2(x) if self.pool else x

        if self.pool and self.in_channels <= IMAGE_CHANNELS:
            return by_platform(
                x,
                kernel,
                scale,
                offset,
                cpu=functools.partial(image_block, microbatch=self.microbatch),
                default=block,
            )
        return block(x, kernel, scale, offset)


class Conv(nn.Module):
    """3x3 convolution with bias and ReLU."""

    features: int
    in_channels: int
    stride: int
    microbatch: int | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", he_normal, (3, 3, self.in_channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return nn.relu(conv3x3(x, kernel, self.stride, self.microbatch) + bias)


class Trunk(nn.Module):
    """Three conv blocks, flattened: images [N, 28, 28, C] -> [N, F].

    pools: which blocks end in a 2x2 max pool. All but the last: sides 26 > 13 > 11 > 5 > 3 and
    F = 9 * features; all: 26 > 13 > 11 > 5 > 3 > 1 and F = features.
    """

    features: int
    microbatch: int | None
    pools: tuple[bool, ...] = LAST_UNPOOLED

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        in_channels = IMAGE_CHANNELS
        for index, pool in enumerate(self.pools):
            x = ConvBlock(self.features, pool, in_channels, self.microbatch, name=f"block_{index}")(
                x
            )
            in_channels = self.features
        return x.reshape(x.shape[0], -1)


def dense(features: int, initial_bias: float = 0.0) -> nn.Dense:
    """Return a dense layer that begins with He normal weights and one bias for all outputs."""
    return nn.Dense(
        features,
        kernel_init=he_normal,
        bias_init=nn.initializers.constant(initial_bias),
        dot_general=lambda x, kernel, dimensions, precision: product(x, kernel),
    )
