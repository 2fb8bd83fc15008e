"""Losses and scores of logits."""

import jax
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy, []. logits: float [N, classes]; labels: int [N]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the share of labels [N] that are the argmax of their logits [N, classes], 0 to 1."""
    return (logits.argmax(-1) == labels).mean()
