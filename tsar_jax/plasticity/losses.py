"""What is learned from, and how it is scored."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from tsar_jax.models import Network, Params, Signals, run_levels
from tsar_jax.plasticity.masks import combine


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy. logits [N, classes], labels [N]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of labels that are the argmax of their logits [N, classes]."""
    return (logits.argmax(-1) == labels).mean()


def moment_loss(
    network: Network, frozen: Params, depth: int
) -> Callable[[Params, tuple[Signals, jax.Array]], jax.Array]:
    """loss(plastic part of the parameters, (signal, label)): cross-entropy of a single moment.

    frozen: the other part, see `partition`. A signal is one row of those that enter level `depth`.
    """

    def loss(plastic: Params, moment: tuple[Any, jax.Array]) -> jax.Array:
        signal, label = jax.tree.map(lambda s: s[None], moment)
        return cross_entropy(run_levels(network, combine(plastic, frozen), signal, depth), label)

    return loss
