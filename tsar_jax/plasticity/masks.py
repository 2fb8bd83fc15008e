"""Selection of the parameters that change within a lifetime: trees of booleans, chosen by name."""

from collections.abc import Sequence
from typing import Any

import jax

from tsar_jax.errors import UserError, nearest_hint

Tree = Any


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(entry.key) for entry in path)


def leaf_names(params: Tree) -> list[str]:
    """Return names such as `trunk/block_0/kernel`, in the order of the tree's leaves."""
    return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def mask(params: Tree, names: Sequence[str]) -> Tree:
    """Return a tree of booleans, True where an array's name is one of `names` or lies below one.

    Args:
        params: nested dictionaries of arrays.
        names: of arrays or subtrees; "all" is every array.

    Raises:
        UserError: no array has such a name.
    """
    leaves = leaf_names(params)
    for name in names:
        if name != "all" and not any(_below(leaf, name) for leaf in leaves):
            near = nearest_hint(name, ["all", *leaves, *(leaf.split("/")[0] for leaf in leaves)])
            first = sorted({leaf.split("/")[0] for leaf in leaves})
            raise UserError(
                f"No parameter is called {name!r}: choose from all, {', '.join(first)}, "
                f"or a longer name such as {leaves[0]}{near}."
            )
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(_below(_name(path), name) for name in names), params
    )


def _below(leaf: str, name: str) -> bool:
    return name == "all" or leaf == name or leaf.startswith(name + "/")


def partition(params: Tree, plastic: Tree) -> tuple[Tree, Tree]:
    """Split params by a tree of booleans; each part has None where the other has its arrays."""
    chosen = jax.tree.map(lambda p, keep: p if keep else None, params, plastic)
    others = jax.tree.map(lambda p, keep: None if keep else p, params, plastic)
    return chosen, others


def combine(chosen: Tree, others: Tree) -> Tree:
    """Undo `partition`."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, chosen, others, is_leaf=lambda x: x is None
    )
