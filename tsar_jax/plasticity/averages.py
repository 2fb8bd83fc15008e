"""Semantic memory: models that are moving averages of a working model."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def effective_alpha(step: jax.Array, alpha: float) -> jax.Array:
    """min(1 - 1/(step + 1), alpha): a plain mean at first. step: counted from 1."""
    return jnp.minimum(1 - 1 / (step + 1), alpha)


def average(old: Tree, new: Tree, alpha: jax.Array) -> Tree:
    """alpha * old + (1 - alpha) * new, leaf by leaf."""
    return jax.tree.map(lambda a, b: a + (1 - alpha).astype(a.dtype) * (b - a), old, new)


def sometimes(key: jax.Array, frequency: float) -> jax.Array:
    """Whether something happens that happens with a probability of `frequency`."""
    return jax.random.uniform(key) < frequency
