"""3x3 convolution without padding: XLA's on accelerators, slices times a matrix on a CPU."""

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.devices import by_platform
from tsar_jax.ops.products import in_microbatches, product


def conv3x3(
    images: jax.Array, kernel: jax.Array, stride: int = 1, microbatch: int | None = None
) -> jax.Array:
    """Return a 3x3 convolution without padding.

    Images of one channel are grey: under a kernel of several input channels they count as that many
    equal channels, whose sum is one channel under the summed kernel.

    Args:
        images: [N, H, W, C].
        kernel: [3, 3, C, D].
        stride: along both axes.
        microbatch: images at a time on a CPU (None: all), see `in_microbatches`.

    Returns:
        [N, h, w, D], of the dtype that images and kernel promote to, because XLA's convolution
        takes
        one dtype: in 64 bits, kernels are float64 where not made otherwise, and images float32.
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
    """Return the convolution as nine shifted slices times one matrix, which XLA runs fast on a
    CPU.
    """
    return product(patches_of(images, stride), kernel.reshape(-1, kernel.shape[-1]))


def patches_of(images: jax.Array, stride: int = 1) -> jax.Array:
    """Return the input of a 3x3 kernel at each position: [N, H, W, C] -> [N, h, w, 9 C], row by
    row.
    """
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
