"""Arrays kept in bfloat16 between steps, for half the memory and half the traffic.

Rounding to the nearest would lose every change below 1/256 of a value, which is most of what
Adam does. Stochastic rounding, up or down in proportion to the part that is cut off, keeps changes
in the mean (Gupta et al. 2015, arXiv 1502.02551).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Tree = Any


def to_bfloat16(tree: Tree, names: tuple[str, ...]) -> Tree:
    """Return the tree with arrays in bfloat16 whose path, such as `params/a/kernel`, ends in a
    name.
    """

    def cast(path: Any, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf.astype(jnp.bfloat16) if name.endswith(names) else leaf

    return jax.tree_util.tree_map_with_path(cast, tree)


def cast_to_float32(tree: Tree) -> Tree:
    """Return the tree with its bfloat16 arrays in float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


def stochastic_round_like(tree: Tree, like: Tree, key: jax.Array) -> Tree:
    """Return the tree with arrays rounded stochastically to bfloat16 where `like` has bfloat16."""
    leaves, structure = jax.tree.flatten(tree)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(like)]
    rounded = [
        stochastic_round(leaf, jax.random.fold_in(key, index)) if dtype == jnp.bfloat16 else leaf
        for index, (leaf, dtype) in enumerate(zip(leaves, dtypes, strict=True))
    ]
    return jax.tree.unflatten(structure, rounded)


def stochastic_round(x: jax.Array, key: jax.Array) -> jax.Array:
    """Round float32 to bfloat16, to one of the two neighbours, such that the mean is x."""
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    upper = (lax.bitcast_convert_type(x, jnp.uint32) + noise) >> 16
    return lax.bitcast_convert_type(upper.astype(jnp.uint16), jnp.bfloat16)
