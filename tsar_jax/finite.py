"""Finite numbers among others: whether all are, and the mean of those that are."""

from typing import Any

import jax
import jax.numpy as jnp


def all_finite(tree: Any) -> jax.Array:
    """Return whether every floating-point array of a tree is finite, bool []."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]
    return jnp.asarray([jnp.isfinite(leaf).all() for leaf in leaves], bool).all()


def is_inexact(leaf: Any) -> bool:
    """Return whether a leaf of a tree holds floating-point or complex numbers."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def finite_mean(values: jax.Array) -> jax.Array:
    """Return the mean of the finite values over the leading axis; NaN where none is finite."""
    return jnp.nanmean(jnp.where(jnp.isfinite(values), values, jnp.nan), axis=0)
