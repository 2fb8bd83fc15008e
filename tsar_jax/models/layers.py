"""Convolution, per-image normalisation and pooling, each in the form its device runs fastest."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

NORM_EPSILON = 1e-5

# He et al. (2015): standard deviation sqrt(2 / fan_in), not truncated, as the releases draw it.
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def conv3x3(images: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """3x3 convolution without padding. images [N, H, W, C], kernel [3, 3, C, D] -> [N, h, w, D].

    Images of one channel are grey: under a kernel of several input channels they stand for
    that many equal channels, whose sum is one channel under the summed kernel.
    """
    chex.assert_rank([images, kernel], 4)
    if images.shape[-1] == 1:
        kernel = kernel.sum(2, keepdims=True)
    chex.assert_equal(images.shape[-1], kernel.shape[2])
    return lax.platform_dependent(
        images,
        kernel,
        cpu=lambda x, k: _conv_as_product(x, k, stride),
        default=lambda x, k: lax.conv_general_dilated(
            x, k, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
    )


def _conv_as_product(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The same convolution as nine shifted slices times one matrix: XLA's CPU products are fast."""
    height, width = ((size - 3) // stride + 1 for size in images.shape[1:3])
    patches = jnp.concatenate(
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
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def norm_per_image(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    """Normalise each channel of each image over its height and width. x [N, H, W, C].

    Mean and biased variance, epsilon 1e-5: what batch normalisation does to a batch of one,
    which is how the releases of ANML and TSAR call it.
    """
    chex.assert_equal_shape([scale, offset])
    centred = x - x.mean((1, 2), keepdims=True)
    variance = jnp.square(centred).mean((1, 2), keepdims=True)
    return centred * lax.rsqrt(variance + NORM_EPSILON) * scale + offset


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """2x2 max pool, stride 2, odd last rows and columns dropped. [N, H, W, C] -> [N, H/2, W/2, C]."""
    return lax.platform_dependent(
        x,
        cpu=_pool_as_slices,
        default=lambda x: nn.max_pool(x, (2, 2), (2, 2)),
    )


@jax.custom_vjp
def _pool_as_slices(x: jax.Array) -> jax.Array:
    """Max pool as four strided slices; its gradient goes to the first of equal maxima."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    a, b, c, d = (x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1))
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _pool_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    pooled = _pool_as_slices(x)
    return pooled, (x, pooled)


def _pool_backward(residuals: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    x, pooled = residuals
    n, rows, columns, channels = x.shape
    height, width = rows // 2, columns // 2
    cells = x[:, : 2 * height, : 2 * width].reshape(n, height, 2, width, 2, channels)
    taken = jnp.zeros(pooled.shape, bool)
    parts = []
    for i in (0, 1):
        for j in (0, 1):
            is_max = (cells[:, :, i, :, j] == pooled) & ~taken
            taken = taken | is_max
            parts.append(jnp.where(is_max, gradient, 0))
    upper, lower = jnp.stack(parts[:2], 3), jnp.stack(parts[2:], 3)
    spread = jnp.stack([upper, lower], 2).reshape(n, 2 * height, 2 * width, channels)
    return (
        jnp.pad(spread, ((0, 0), (0, rows - 2 * height), (0, columns - 2 * width), (0, 0))),
    )


_pool_as_slices.defvjp(_pool_forward, _pool_backward)


class ConvBlock(nn.Module):
    """3x3 convolution, per-image norm, ReLU and, where asked for, a 2x2 max pool.

    The convolution's bias exists for the releases' sake: the norm subtracts it again, so it is
    left out of the computation and its gradient is exactly zero rather than rounding noise,
    which Adam would blow up to whole steps.
    """

    features: int
    pool: bool
    in_channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", he_normal, (3, 3, self.in_channels, self.features))
        self.param("bias", nn.initializers.zeros, (self.features,))
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        offset = self.param("offset", nn.initializers.zeros, (self.features,))
        x = nn.relu(norm_per_image(conv3x3(x, kernel), scale, offset))
        return max_pool_2x2(x) if self.pool else x


class Conv(nn.Module):
    """3x3 convolution with bias and ReLU."""

    features: int
    in_channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", he_normal, (3, 3, self.in_channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return nn.relu(conv3x3(x, kernel, self.stride) + bias)


class Trunk(nn.Module):
    """Three conv blocks, pooled after the first two: [N, 28, 28, C] -> [N, 3 * 3 * features]."""

    features: int
    image_channels: int = 3

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        in_channels = self.image_channels
        for index, pool in enumerate((True, True, False)):
            x = ConvBlock(self.features, pool, in_channels, name=f"block_{index}")(x)
            in_channels = self.features
        return x.reshape(x.shape[0], -1)


def dense(features: int) -> nn.Dense:
    """A dense layer, He normal weights and zero bias."""
    return nn.Dense(features, kernel_init=he_normal)
