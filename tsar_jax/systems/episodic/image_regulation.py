"""The strength of a TSAR's regulation of a layer's weights, image by image."""

from collections.abc import Callable
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.networks import TSAR, Network, run_stages
from tsar_jax.systems.episodic.meta_test_lifetime import default_memory_budget

Params = Any
Normalise = Callable[[jax.Array], jax.Array]

THIRD = "block_2"
"""The third convolution, whose mean regulation ranks images."""


def regulates_third(network: Network) -> TypeGuard[TSAR]:
    """Return whether the third convolution of a network is regulated."""
    return isinstance(network, TSAR) and THIRD in network.regulated


def mean_regulation(
    network: TSAR,
    params: Params,
    images: jax.Array,
    normalise: Normalise,
    layer: str = THIRD,
    memory_budget: int | None = None,
) -> jax.Array:
    """Return the mean gate of a layer's kernel for each image.

    Args:
        images: uint8 [classes, per_class, ...].
        normalise: maps images to the network's input.
        layer: name of the layer.
        memory_budget: see `summarise_gates`.

    Returns:
        Float [classes, per_class], in [0, 1].
    """
    return summarise_gates(network, params, images, normalise, jnp.mean, layer, memory_budget)


def open_share(
    network: TSAR,
    params: Params,
    images: jax.Array,
    normalise: Normalise,
    threshold: float,
    layer: str = THIRD,
    memory_budget: int | None = None,
) -> jax.Array:
    """Return the share of a layer's gates above a threshold, for each image.

    Arguments and result are otherwise those of `mean_regulation`.
    """

    def share_above(gates: jax.Array) -> jax.Array:
        return (gates > threshold).mean()

    return summarise_gates(network, params, images, normalise, share_above, layer, memory_budget)


def summarise_gates(
    network: TSAR,
    params: Params,
    images: jax.Array,
    normalise: Normalise,
    summary: Callable[[jax.Array], jax.Array],
    layer: str,
    memory_budget: int | None = None,
) -> jax.Array:
    """Return a summary of a layer's gates for each image.

    Args:
        images: uint8 [classes, per_class, ...].
        normalise: maps images to the network's input.
        summary: gates [*kernel] -> scalar.
        layer: name of the layer.
        memory_budget: bytes of images that are regulated at a time. None: as many as suit the
            device, or as the layer's regulating weights take, which are read once for each batch.

    Returns:
        Float [classes, per_class].
    """
    flat = images.reshape(-1, *images.shape[2:])
    regulator_bytes = params["regulator"][layer]["kernel"].nbytes
    budget = memory_budget or max(default_memory_budget(), regulator_bytes)
    batch_size = min(len(flat), max(1, budget // bytes_per_image(params, flat.shape, layer)))
    batches = -(-len(flat) // batch_size)
    rows = jnp.minimum(jnp.arange(batches * batch_size), len(flat) - 1)

    def summarise(batch: jax.Array) -> jax.Array:
        _, gates = run_stages(network, params, normalise(flat[batch]), 0, 2)
        return jax.vmap(summary)(gates[layer]["kernel"])

    summaries = lax.map(summarise, rows.reshape(batches, batch_size))
    return summaries.reshape(-1)[: len(flat)].reshape(images.shape[:2])


def bytes_per_image(params: Params, shape: tuple[int, ...], layer: str = THIRD) -> int:
    """Return the bytes that regulating a layer takes for one image.

    These are its gates and the largest activation of the encoder, each as it is made and as it is
    used.

    Args:
        shape: shape of images [N, H, W, ...].
    """
    pixels = shape[1] * shape[2]
    activation = pixels * params["encoder"]["block_0"]["bias"].nbytes
    return 2 * (params["regulator"][layer]["bias"].nbytes + activation)
