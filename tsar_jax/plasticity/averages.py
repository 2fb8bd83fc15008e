"""Semantic memory: models that are moving averages of a working model."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def effective_alpha(step: jax.Array, alpha: float) -> jax.Array:
    """Return min(1 - 1/(step + 1), alpha): a plain mean at first. step: counted from 1, int []."""
    return jnp.minimum(1 - 1 / (step + 1), alpha)


def average(old: Tree, new: Tree, alpha: jax.Array) -> Tree:
    """Return alpha * old + (1 - alpha) * new, leaf by leaf. alpha: float [], 0 to 1."""
    return jax.tree.map(lambda a, b: a + (1 - alpha).astype(a.dtype) * (b - a), old, new)


def bernoulli(key: jax.Array, frequency: float) -> jax.Array:
    """Return True with a probability of `frequency`, bool []."""
    return jax.random.uniform(key) < frequency
