"""Importance of parameters by the diagonal of the Fisher information, and penalties that use it."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def filter_means(importance: Tree) -> Tree:
    """Return the importance with every convolution filter's replaced by its mean.

    A kernel [height, width, in, out] has `out` filters; a leaf with fewer axes is no convolution
    and stays as it is.
    """

    def adjusted(leaf: jax.Array) -> jax.Array:
        if leaf.ndim < 4:
            return leaf
        return jnp.broadcast_to(leaf.mean((0, 1, 2), keepdims=True), leaf.shape)

    return jax.tree.map(adjusted, importance)


def weighted_distance(importance: Tree, params: Tree, anchor: Tree) -> jax.Array:
    """Return sum F (theta - theta*)^2 over all parameters, float []."""
    terms = jax.tree.map(lambda f, p, a: (f * jnp.square(p - a)).sum(), importance, params, anchor)
    return jax.tree.reduce(jnp.add, terms)
