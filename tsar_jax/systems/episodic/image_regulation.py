"""How strongly a TSAR regulates a layer's weights, image by image."""

from collections.abc import Callable
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.networks import TSAR, Network, run_stages
from tsar_jax.systems.episodic.meta_test import automatic_memory

Params = Any
Normalise = Callable[[jax.Array], jax.Array]

THIRD = "block_2"
"""The third convolution, whose mean regulation ranks images."""


def regulates_third(network: Network) -> TypeGuard[TSAR]:
    """Whether the third convolution of a network is regulated."""
    return isinstance(network, TSAR) and THIRD in network.regulated


def mean_regulation(
    network: TSAR,
    params: Params,
    images: jax.Array,
    normalise: Normalise,
    layer: str = THIRD,
    memory: int | None = None,
) -> jax.Array:
    """Mean gate of a layer's kernel for images uint8 [classes, per_class, ...]: float [.., ..].

    memory: see `summarise_gates`.
    """
    return summarise_gates(network, params, images, normalise, jnp.mean, layer, memory)


def open_share(
    network: TSAR,
    params: Params,
    images: jax.Array,
    normalise: Normalise,
    threshold: float,
    layer: str = THIRD,
    memory: int | None = None,
) -> jax.Array:
    """Share of a layer's gates above a threshold, image by image; all else as `mean_regulation`."""

    def share(gates: jax.Array) -> jax.Array:
        return (gates > threshold).mean()

    return summarise_gates(network, params, images, normalise, share, layer, memory)


def summarise_gates(
    network: TSAR,
    params: Params,
    images: jax.Array,
    normalise: Normalise,
    summary: Callable[[jax.Array], jax.Array],
    layer: str,
    memory: int | None = None,
) -> jax.Array:
    """summary(gates [*kernel]) -> scalar for images uint8 [classes, per_class, ...]: [.., ..].

    As many images at a time as fit into `memory` bytes (None: what suits the device, or as much as
    the layer's regulating weights take, which are read once for each batch).
    """
    flat = images.reshape(-1, *images.shape[2:])
    room = memory or max(automatic_memory(), params["regulator"][layer]["kernel"].nbytes)
    together = min(len(flat), max(1, room // bytes_per_image(params, flat.shape, layer)))
    batches = -(-len(flat) // together)
    rows = jnp.minimum(jnp.arange(batches * together), len(flat) - 1)

    def summarise(batch: jax.Array) -> jax.Array:
        _, gates = run_stages(network, params, normalise(flat[batch]), 0, 2)
        return jax.vmap(summary)(gates[layer]["kernel"])

    found = lax.map(summarise, rows.reshape(batches, together))
    return found.reshape(-1)[: len(flat)].reshape(images.shape[:2])


def bytes_per_image(params: Params, shape: tuple[int, ...], layer: str = THIRD) -> int:
    """Memory that regulating a layer takes for one of images [N, H, W, ...].

    Its gates, and the largest activation of the encoder: each as it is made and as it is used.
    """
    pixels = shape[1] * shape[2]
    activation = pixels * params["encoder"]["block_0"]["bias"].nbytes
    return 2 * (params["regulator"][layer]["bias"].nbytes + activation)
