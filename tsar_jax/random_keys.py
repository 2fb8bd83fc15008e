"""Typed random keys as the integers that they are made of, which files and other devices take."""

from typing import Any

import jax
import jax.numpy as jnp


def is_key(leaf: Any) -> bool:
    """Return whether a leaf of a tree, an array or a ShapeDtypeStruct, is of typed random keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def wrap_key(data: jax.Array, like: Any) -> jax.Array:
    """Return the keys that are made of these integers, of the implementation of `like`.

    like: keys, or their ShapeDtypeStruct.
    """
    # key_impl wants a key, which a traced ShapeDtypeStruct is.
    traced: list[Any] = []
    jax.eval_shape(lambda key: traced.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(data, impl=traced[0])
