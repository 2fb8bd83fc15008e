"""Linen layers of convolutional classifiers: blocks with a norm per image, trunks, dense layers."""

import functools

import flax.linen as nn
import jax

from tsar_jax.devices import by_platform
from tsar_jax.ops.conv3x3 import conv3x3
from tsar_jax.ops.image_block import image_block, norm_per_image
from tsar_jax.ops.pool import max_pool_2x2
from tsar_jax.ops.products import product

# Input channels of the first kernels; a grey image counts as three equal channels.
IMAGE_CHANNELS = 3


# Which of a trunk's blocks end in a max pool: in ANML's networks, and in TSAR's classifier.
LAST_UNPOOLED = (True, True, False)


ALL_POOLED = (True, True, True)


# He et al. (2015): standard deviation sqrt(2 / fan_in), not truncated, as the releases draw it.
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class ConvBlock(nn.Module):
    """3x3 convolution, per-image norm, ReLU and, where asked for, a 2x2 max pool.

    The convolution's bias exists only for compatibility with the releases: the norm subtracts it
    again, so it is left out of the computation and its gradient is exactly zero rather than
    rounding noise, which Adam would scale up to whole steps.
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
    """Return a dense layer with He normal initial weights and one initial bias for all outputs."""
    return nn.Dense(
        features,
        kernel_init=he_normal,
        bias_init=nn.initializers.constant(initial_bias),
        dot_general=lambda x, kernel, dimensions, precision: product(x, kernel),
    )
