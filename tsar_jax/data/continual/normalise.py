"""Images as network inputs: 0 to 1, and colour less its mean over its deviation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tsar_jax.data.normalise import STATISTICS, Statistics


def scale(images: jax.Array) -> jax.Array:
    """Return uint8 of 0..255 as float of 0..1."""
    return images.astype(jnp.result_type(float)) / 255


def statistics_of(kind: str, dataset: str) -> Statistics:
    """Return the channels' statistics that a stream over a data set of colour is normalised by.

    kind: of the stream, as `split_name` returns it. Data that the table lacks are treated as
    photographs like ImageNet's.
    """
    use = f"{dataset}_gcil" if kind.startswith("gcil") else dataset
    return STATISTICS.get(use, STATISTICS.get(dataset, STATISTICS["imagenet"]))


def make_normalise(statistics: Statistics, channels: int) -> Callable[[jax.Array], jax.Array]:
    """Return the function uint8 [N, H, W, C] -> float. Grey images are only scaled."""
    if channels == 1:
        return scale

    def normalise(images: jax.Array) -> jax.Array:
        values = scale(images)
        mean, std = (jnp.asarray(value, values.dtype) for value in statistics)
        return (values - mean) / std

    return normalise
