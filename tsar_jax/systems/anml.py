"""ANML and OML: meta-learn what a network should learn, and when.

Beaulieu et al. (2020), arXiv 2002.09571; Javed and White (2019), arXiv 1905.12588.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from tsar_jax.data.episodes import Episode
from tsar_jax.meta.gradient import in_microbatches
from tsar_jax.models import Network, frozen_levels
from tsar_jax.plasticity.lifetime import live, sgd_update
from tsar_jax.plasticity.masks import combine, partition

Params = Any
Metrics = dict[str, jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy. logits [N, classes], labels [N]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of labels that are the argmax of their logits [N, classes]."""
    return (logits.argmax(-1) == labels).mean()


def inner_loop(
    network: Network,
    theta: Params,
    plastic: Params,
    images: jax.Array,
    labels: jax.Array,
    *,
    rate: float,
    first_order: bool,
    remat: bool = False,
    microbatch: int = 4,
) -> Params:
    """Learn images [T, H, W, C] one after another by SGD; the fast weights that result.

    plastic: tree of booleans, what learns. What lies before the first plastic level does not
    change meanwhile, so its signals are computed once, in batches.
    """
    depth = frozen_levels(network, plastic)
    signals = run_levels(network, theta, images, 0, depth, microbatch)
    if first_order:
        signals = lax.stop_gradient(signals)
    slow, frozen = partition(theta, plastic)

    def loss(fast: Params, moment: tuple[Any, jax.Array]) -> jax.Array:
        signal, label = moment
        logits = network.apply(
            {"params": combine(fast, frozen)},
            jax.tree.map(lambda s: s[None], signal),
            depth,
            method="run",
        )
        return cross_entropy(logits, label[None])

    update = sgd_update(loss, rate, first_order=first_order)
    fast = live(update, slow, (signals, labels), remat=remat)
    return combine(fast, frozen)


def run_levels(
    network: Network, params: Params, images: jax.Array, first: int, last: int, microbatch: int
) -> Any:
    """Signals of levels first..last for images [N, ...], `microbatch` at a time."""
    if first == last:
        return images
    return lax.map(
        lambda image: jax.tree.map(
            lambda s: s[0],
            network.apply({"params": params}, image[None], first, last, method="run"),
        ),
        images,
        batch_size=microbatch,
    )


def meta_objective(
    network: Network,
    theta: Params,
    plastic: Params,
    episode: Episode,
    *,
    rate: float,
    first_order: bool,
    remat: bool = False,
    microbatch: int = 4,
) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of the query set after the inner loop, and its accuracy.

    episode: images normalised, [.., H, W, C].
    """
    fast = inner_loop(
        network,
        theta,
        plastic,
        episode.trajectory_images,
        episode.trajectory_labels,
        rate=rate,
        first_order=first_order,
        remat=remat,
        microbatch=microbatch,
    )

    def query_loss(params: Params, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Metrics]:
        images, labels = batch
        logits = network.apply({"params": params}, images)
        return cross_entropy(logits, labels), {"accuracy": accuracy(logits, labels)}

    return in_microbatches(query_loss, microbatch)(
        fast, (episode.query_images, episode.query_labels)
    )


def forget_classes(theta: Params, classes: jax.Array, key: jax.Array) -> Params:
    """Re-draw the output rows of some classes (He normal over the fan-in; bias untouched)."""
    kernel = theta["head"]["kernel"]
    scale = jnp.sqrt(2.0 / kernel.shape[0]).astype(kernel.dtype)
    rows = scale * jax.random.normal(key, (kernel.shape[0], classes.size), kernel.dtype)
    head = {**theta["head"], "kernel": kernel.at[:, classes].set(rows)}
    return {**theta, "head": head}


@struct.dataclass
class State:
    """Slow weights and Adam's moments."""

    params: Params
    opt_state: optax.OptState
