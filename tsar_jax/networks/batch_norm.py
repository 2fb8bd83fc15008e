"""Batch normalisation: by the statistics of a batch, of each image, or by the running ones."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.ops.image_block import NORM_EPSILON

# Weight of the newest statistics in the running ones, PyTorch's default.
MOMENTUM = 0.1


class BatchStatistics(NamedTuple):
    """Mean and biased variance of each channel, [.., C], and the number of values that they are
    of.
    """

    mean: jax.Array
    variance: jax.Array
    values: jax.Array | int


def batch_statistics(x: jax.Array, mask: jax.Array | None) -> BatchStatistics:
    """Return the statistics over the images of x [N, H, W, C] whose mask [N] is 1 (None: all).

    Without any such image the mean is 0 and the variance 1, so that nothing overflows.
    """
    positions = x.shape[1] * x.shape[2]
    if mask is None:
        mean = x.mean((0, 1, 2))
        return BatchStatistics(mean, jnp.square(x - mean).mean((0, 1, 2)), x.shape[0] * positions)
    weight = mask[:, None, None, None].astype(x.dtype)
    count = weight.sum() * positions
    scale = 1 / jnp.maximum(count, 1)
    mean = (weight * x).sum((0, 1, 2)) * scale
    variance = (weight * jnp.square(x - mean)).sum((0, 1, 2)) * scale
    return BatchStatistics(mean, jnp.where(count > 0, variance, 1), count)


def image_statistics(x: jax.Array) -> BatchStatistics:
    """Return the statistics of each image of x [N, H, W, C]: mean [N, C], variance [N, C]."""
    mean = x.mean((1, 2))
    variance = jnp.square(x - mean[:, None, None]).mean((1, 2))
    return BatchStatistics(mean, variance, x.shape[1] * x.shape[2])


def normalise(
    x: jax.Array, mean: jax.Array, variance: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    """Return (x - mean) / sqrt(variance + 1e-5) * scale + bias, channel by channel. x [N, H, W,
    C].
    """
    chex.assert_equal_shape([scale, bias])
    return (x - mean) * (lax.rsqrt(variance + NORM_EPSILON) * scale) + bias


def update_running(
    running: dict[str, jax.Array], statistics: BatchStatistics
) -> dict[str, jax.Array]:
    """Return the running statistics after a batch; an empty one changes nothing.

    running <- 0.9 running + 0.1 (mean, unbiased variance).
    """
    momentum = jnp.where(statistics.values > 0, MOMENTUM, 0.0).astype(statistics.mean.dtype)
    unbiased = statistics.variance * (statistics.values / jnp.maximum(statistics.values - 1, 1))
    return {
        "mean": running["mean"] + momentum * (statistics.mean - running["mean"]),
        "variance": running["variance"] + momentum * (unbiased - running["variance"]),
    }


def update_running_per_image(
    running: dict[str, jax.Array], statistics: BatchStatistics
) -> dict[str, jax.Array]:
    """Return the running statistics after N batches of one image, one after another.

    running <- 0.9^N running + sum_i 0.1 0.9^(N-1-i) (mean_i, unbiased variance_i).

    statistics: of the images, [N, C].
    """
    images = statistics.mean.shape[0]
    dtype = statistics.mean.dtype
    weights = MOMENTUM * (1 - MOMENTUM) ** jnp.arange(images - 1, -1, -1, dtype=dtype)
    decay = (1 - MOMENTUM) ** images
    unbiased = statistics.variance * (statistics.values / jnp.maximum(statistics.values - 1, 1))
    return {
        "mean": decay * running["mean"] + weights @ statistics.mean,
        "variance": decay * running["variance"] + weights @ unbiased,
    }
