"""Per-image norm, and a whole convolution block of images with few channels, for CPUs."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.ops.conv3x3 import patches_of
from tsar_jax.ops.pool import largest_product
from tsar_jax.ops.products import in_microbatches

NORM_EPSILON = 1e-5


def norm_per_image(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    """Normalise each channel of each image over its height and width. x [N, H, W, C].

    Mean and biased variance, epsilon 1e-5: batch normalisation of a batch of one, which is how the
    releases of ANML and TSAR use it.
    """
    chex.assert_equal_shape([scale, offset])
    centred = x - x.mean((1, 2), keepdims=True)
    variance = jnp.square(centred).mean((1, 2), keepdims=True)
    return centred * lax.rsqrt(variance + NORM_EPSILON) * scale + offset


def image_block(
    images: jax.Array,
    kernel: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    microbatch: int | None,
) -> jax.Array:
    """Return convolution, per-image norm, ReLU and 2x2 max pool of images: the first `ConvBlock` on
    a CPU.

    With so few channels the output is many times larger than the input, and passes over it would
    take most of the time. So the norm's variance is k' S k, S being the covariance of the image's
    patches; and since the norm is monotone in each channel, pooling comes first: then norm and ReLU
    process a quarter of the values.

    Args:
        images: [N, H, W, C].
        kernel: [3, 3, 3 or C, D].
        scale, offset: of the norm, [D].
        microbatch: images at a time (None: all).

    Returns:
        [N, h // 2, w // 2, D].
    """
    if images.shape[-1] == 1:
        kernel = kernel.sum(2, keepdims=True)
    chex.assert_equal(images.shape[-1], kernel.shape[2])
    patches = patches_of(images)
    # The norm subtracts the mean: subtracted here it costs little and rounds least.
    patches = patches - patches.mean((1, 2), keepdims=True)
    n, height, width, taps = patches.shape
    flat = patches.reshape(n, height * width, taps)
    covariance = jnp.einsum("npa,npb->nab", flat, flat) / (height * width)
    height, width = height // 2, width // 2
    cells = patches[:, : 2 * height, : 2 * width].reshape(n, height, 2, width, 2, taps)
    cells = cells.transpose(0, 1, 3, 2, 4, 5).reshape(n, height, width, 4, taps)

    def block(params: tuple[jax.Array, ...], x: tuple[jax.Array, ...]) -> jax.Array:
        kernel, scale, offset = params
        cells, covariance = x
        # A negative gain turns the largest into the smallest, so its sign moves to the kernel.
        sign = jnp.where(scale < 0, -1, 1).astype(scale.dtype)
        matrix = kernel.reshape(-1, kernel.shape[-1]) * sign
        variance = jnp.einsum("ad,nab,bd->nd", matrix, covariance, matrix)
        gain = (sign * scale) * lax.rsqrt(variance + NORM_EPSILON)
        return nn.relu(largest_product(cells, matrix) * gain[:, None, None] + offset)

    return in_microbatches(block, (kernel, scale, offset), (cells, covariance), microbatch)
