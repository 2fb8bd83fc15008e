"""Normalisation of colour images: each channel less its mean, over its deviation.

Statistics are on a scale of 0 to 1. All statistics of the project are in `STATISTICS`, by use,
because the releases do not agree on CIFAR-100's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel (red, green, blue), on a scale of 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


STATISTICS = {
    "cifar10": Statistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2615)),
    # CIFAR-100's own, for seq-cifar100 as in Mammoth: the releases of SYNERgy and CLS-ER have no
    # such stream, though CLS-ER publishes results of one.
    "cifar100": Statistics((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    # Both releases normalise GCIL-CIFAR-100 by CIFAR-10's statistics.
    "cifar100_gcil": Statistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2615)),
    # The TSAR release's transfer to CIFAR-100 uses CIFAR-10's, rounded differently.
    "cifar100_transfer": Statistics((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    # Statistics of torchvision's models, used for any other photographs.
    "imagenet": Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "tiny_imagenet": Statistics((0.4802, 0.4480, 0.3975), (0.2770, 0.2691, 0.2821)),
}


def normalise_cifar100(images: jax.Array) -> jax.Array:
    """Return images for transfer to CIFAR-100, normalised as the TSAR release does.

    uint8 [..., H, W, 3] of 0..255 -> float32 [..., H, W, 3]: x = (v / 255 - mean) / std.
    """
    return _normalise(images, STATISTICS["cifar100_transfer"])


def normalise_imagenet(images: jax.Array) -> jax.Array:
    """Return images normalised by ImageNet's statistics.

    uint8 [..., H, W, 3] of 0..255 -> float32 [..., H, W, 3]: x = (v / 255 - mean) / std.
    """
    return _normalise(images, STATISTICS["imagenet"])


def _normalise(images: jax.Array, statistics: Statistics) -> jax.Array:
    mean, std = (jnp.asarray(value, jnp.float32) for value in statistics)
    return (images.astype(jnp.float32) / 255 - mean) / std
