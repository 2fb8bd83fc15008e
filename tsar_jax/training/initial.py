"""Weights to begin a run with that another run has found, or a release."""

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
    for name, leaf in zip(names, leaves, strict=True):
        if name not in held or held[name].shape != leaf.shape:
            there = list(held[name].shape) if name in held else "absent"
            raise UserError(
                f"The weights of {path} do not fit this run: {name} is {there} there, but "
                f"{list(leaf.shape)} here; set the network as there, or name another run with "
                "--init."
            )
    extra = [name for name in held if name not in names]
    if extra:
        raise UserError(
            f"The weights of {path} do not fit this run: {extra[0]} is "
            f"{list(held[extra[0]].shape)} there, but absent here; set the network as there, or "
            "name another run with --init."
        )
    arrays = [
        # Copied, for the loop donates the state's buffers and NumPy's are not JAX's to overwrite.
        jnp.array(np.asarray(held[name], leaf.dtype))
        for name, leaf in zip(names, leaves, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), arrays)
