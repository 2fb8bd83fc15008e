"""What is learned from, and how it is scored."""

import jax
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy. logits [N, classes], labels [N]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of labels that are the argmax of their logits [N, classes]."""
    return (logits.argmax(-1) == labels).mean()
