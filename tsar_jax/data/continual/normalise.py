"""Images as networks take them: 0 to 1, and colour less its mean over its deviation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tsar_jax.data.normalise import IMAGENET_MEAN, IMAGENET_STD

# Of each channel: mean and standard deviation on a scale of 0 to 1, as the releases have them.
# Colour data that are not named here are taken for photographs like ImageNet's.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2615)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "tiny_imagenet": ((0.4802, 0.4480, 0.3975), (0.2770, 0.2691, 0.2821)),
}


def scale(images: jax.Array) -> jax.Array:
    """uint8 of 0..255 -> float of 0..1."""
    return images.astype(jnp.result_type(float)) / 255


def make_normalise(dataset: str, channels: int) -> Callable[[jax.Array], jax.Array]:
    """uint8 [N, H, W, C] -> float. Grey images are scaled and no more."""
    if channels == 1:
        return scale
    mean, std = STATISTICS.get(dataset, (IMAGENET_MEAN, IMAGENET_STD))

    def normalise(images: jax.Array) -> jax.Array:
        values = scale(images)
        return (values - jnp.asarray(mean, values.dtype)) / jnp.asarray(std, values.dtype)

    return normalise
