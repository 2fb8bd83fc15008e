"""Weights to begin a run with that another run has found, or a release."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.errors import UserError
from tsar_jax.training.checkpoints import leaf_names, read_newest
from tsar_jax.training.run import read_description


def load_initial(run: str, branch: str, like: Any, *, seed: bool = False) -> Any:
    """Return a branch of the state in a run's newest checkpoint, as arrays of `like`'s dtypes.

    Args:
        run: the run's folder, as --init names it.
        branch: path within the state, such as "params".
        like: tree of arrays or ShapeDtypeStructs that the branch must fit.
        seed: whether the state is of several seeds, leading axis of every array; the first counts.

    Raises:
        UserError: there is no such run, or its first array that does not fit is named.
    """
    path = Path(run)
    if not path.is_dir():
        raise UserError(f"There is no run folder {path}: check the path given to --init.")
    read_description(path)
    found = read_newest(path / "checkpoints")
    if found is None:
        raise UserError(f"{path} has no checkpoint to begin with: name another run with --init.")
    held = {
        name.removeprefix(f"{branch}/"): array[0] if seed else array
        for name, array in found[0].items()
        if name.startswith(f"{branch}/")
    }
    names, leaves = leaf_names(like), jax.tree.leaves(like)
    misfit = first_misfit(held, dict(zip(names, leaves, strict=True)))
    if misfit is not None:
        name, there, here = misfit
        raise UserError(
            f"The weights of {path} do not fit this run: {name} is {there} there, but {here} here; "
            "set the network as there, or name another run with --init."
        )
    arrays = [
        # Copied, for the loop donates the state's buffers and NumPy's are not JAX's to overwrite.
        jnp.array(np.asarray(held[name], leaf.dtype))
        for name, leaf in zip(names, leaves, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), arrays)


def first_misfit(
    held: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[str, list[int] | str, list[int] | str] | None:
    """Return the first array that is not held as it is wanted, or None if there is none.

    Args:
        held, wanted: what has a shape, by name.

    Returns:
        Its name, and its shape as held and as wanted; "absent" where there is no such array.
    """
    for name in (*wanted, *held):
        there, here = (
            list(arrays[name].shape) if name in arrays else "absent" for arrays in (held, wanted)
        )
        if there != here:
            return name, there, here
    return None
