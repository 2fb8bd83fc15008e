"""Importance of parameters by the diagonal of the Fisher information, and what is made of it."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def filter_means(importance: Tree) -> Tree:
    """Every convolution filter gets its mean importance, all else keeps its own.

    A kernel [height, width, in, out] has `out` filters; what has fewer axes is no convolution.
    """

    def adjusted(leaf: jax.Array) -> jax.Array:
        if leaf.ndim < 4:
            return leaf
        return jnp.broadcast_to(leaf.mean((0, 1, 2), keepdims=True), leaf.shape)

    return jax.tree.map(adjusted, importance)


def weighted_distance(importance: Tree, params: Tree, anchor: Tree) -> jax.Array:
    """sum F (theta - theta*)^2 over all parameters."""
    terms = jax.tree.map(lambda f, p, a: (f * jnp.square(p - a)).sum(), importance, params, anchor)
    return jax.tree.reduce(jnp.add, terms)
