"""Keep large arrays in bfloat16 between steps: half the memory, and half the traffic.

Rounding to the nearest would lose every change below 1/256 of a value, which is most of what
Adam does. Rounding at random, up or down in proportion to what is cut off, keeps changes in the
mean (Gupta et al. 2015, arXiv 1502.02551).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Tree = Any


def to_bfloat16(tree: Tree, names: tuple[str, ...]) -> Tree:
    """The tree with arrays in bfloat16 whose path, such as `params/a/kernel`, ends in a name."""

    def cast(path: Any, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf.astype(jnp.bfloat16) if name.endswith(names) else leaf

    return jax.tree_util.tree_map_with_path(cast, tree)


def widen(tree: Tree) -> Tree:
    """The tree with its bfloat16 arrays in float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


def narrow_like(tree: Tree, like: Tree, key: jax.Array) -> Tree:
    """The tree with those arrays rounded at random to bfloat16 that are bfloat16 in `like`."""
    leaves, structure = jax.tree.flatten(tree)
    kinds = [leaf.dtype for leaf in jax.tree.leaves(like)]
    narrowed = [
        round_at_random(leaf, jax.random.fold_in(key, index)) if kind == jnp.bfloat16 else leaf
        for index, (leaf, kind) in enumerate(zip(leaves, kinds, strict=True))
    ]
    return jax.tree.unflatten(structure, narrowed)


def round_at_random(x: jax.Array, key: jax.Array) -> jax.Array:
    """float32 -> bfloat16, one of the two neighbours, such that the mean is x."""
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    upper = (lax.bitcast_convert_type(x, jnp.uint32) + noise) >> 16
    return lax.bitcast_convert_type(upper.astype(jnp.uint16), jnp.bfloat16)
