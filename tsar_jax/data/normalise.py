"""Colour images as networks take them: each channel less its mean, over its deviation.

On a scale of 0 to 1. The values for ImageNet are those of torchvision's models; those for CIFAR-100
are CIFAR-10's, as much published code has them for both.
"""

import jax
import jax.numpy as jnp

CIFAR100_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR100_STD = (0.247, 0.243, 0.261)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise_cifar100(images: jax.Array) -> jax.Array:
    """uint8 [..., H, W, 3] of 0..255 -> float32 [..., H, W, 3]: x = (v / 255 - mean) / std."""
    return _normalise(images, CIFAR100_MEAN, CIFAR100_STD)


def normalise_imagenet(images: jax.Array) -> jax.Array:
    """uint8 [..., H, W, 3] of 0..255 -> float32 [..., H, W, 3]: x = (v / 255 - mean) / std."""
    return _normalise(images, IMAGENET_MEAN, IMAGENET_STD)


def _normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    scaled = images.astype(jnp.float32) / 255
    return (scaled - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
