"""Batch normalisation: by the statistics of a batch, of each image, or by the running ones."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.ops.image_block import NORM_EPSILON

# Weight of the newest statistics in the running ones.
MOMENTUM = 0.1


class Moments(NamedTuple):
    """Mean and biased variance of each channel, [.., C], and of how many values they are."""

    mean: jax.Array
    variance: jax.Array
    values: jax.Array | int


def batch_moments(x: jax.Array, mask: jax.Array | None) -> Moments:
    """Over the images of x [N, H, W, C] whose present [N] is 1 (None: all).

    Mean 0 and variance 1 if there is none, so that nothing overflows.
    """
    places = x.shape[1] * x.shape[2]
    if mask is None:
        mean = x.mean((0, 1, 2))
        return Moments(mean, jnp.square(x - mean).mean((0, 1, 2)), x.shape[0] * places)
    weight = mask[:, None, None, None].astype(x.dtype)
    count = weight.sum() * places
    share = 1 / jnp.maximum(count, 1)
    mean = (weight * x).sum((0, 1, 2)) * share
    variance = (weight * jnp.square(x - mean)).sum((0, 1, 2)) * share
    return Moments(mean, jnp.where(count > 0, variance, 1), count)


def image_moments(x: jax.Array) -> Moments:
    """Of each image of x [N, H, W, C]: mean [N, C], variance [N, C]."""
    mean = x.mean((1, 2))
    variance = jnp.square(x - mean[:, None, None]).mean((1, 2))
    return Moments(mean, variance, x.shape[1] * x.shape[2])


def normalise(
    x: jax.Array, mean: jax.Array, variance: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-5) * scale + bias, channel by channel. x [N, H, W, C]."""
    chex.assert_equal_shape([scale, bias])
    return (x - mean) * (lax.rsqrt(variance + NORM_EPSILON) * scale) + bias


def moved(running: dict[str, jax.Array], moments: Moments) -> dict[str, jax.Array]:
    """Running statistics after a batch, unless it was empty.

    running <- 0.9 running + 0.1 (mean, unbiased variance).
    """
    rate = jnp.where(moments.values > 0, MOMENTUM, 0.0).astype(moments.mean.dtype)
    unbiased = moments.variance * (moments.values / jnp.maximum(moments.values - 1, 1))
    return {
        "mean": running["mean"] + rate * (moments.mean - running["mean"]),
        "variance": running["variance"] + rate * (unbiased - running["variance"]),
    }


def moved_by_each(running: dict[str, jax.Array], moments: Moments) -> dict[str, jax.Array]:
    """Running statistics after N batches of one image, one after another; moments [N, C].

    running <- 0.9^N running + sum_i 0.1 0.9^(N-1-i) (mean_i, unbiased variance_i).
    """
    images = moments.mean.shape[0]
    dtype = moments.mean.dtype
    weights = MOMENTUM * (1 - MOMENTUM) ** jnp.arange(images - 1, -1, -1, dtype=dtype)
    kept = (1 - MOMENTUM) ** images
    unbiased = moments.variance * (moments.values / jnp.maximum(moments.values - 1, 1))
    return {
        "mean": kept * running["mean"] + weights @ moments.mean,
        "variance": kept * running["variance"] + weights @ unbiased,
    }
