"""Weights to begin a run with that another run has found, or a release."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.errors import UserError
from tsar_jax.training.checkpoints import branch_of, leaf_names, read_newest
from tsar_jax.training.run import Run, read_description
from tsar_jax.training.seeds import arrays_of_seed


def begin_from(
    init: str | None,
    branch: str,
    like: Callable[[], Any],
    run: Run,
    make: Callable[[Any, jax.Array], Any],
) -> Callable[[jax.Array], Any] | None:
    """Return what makes a seed's first state from the run that --init names; None: none is.

    It takes the seed's key, as `train` asks for.

    Args:
        init: the run's folder.
        branch: what of its state, as `load_initial` takes it.
        like: makes what else it takes; called only where a run is named.
        run: the run that begins; if it resumes, the other is read only where it has no checkpoint.
        make: (what was loaded, the seed's key) -> state.

    Raises:
        UserError: what a new run begins with is not there or does not fit.
    """
    if init is None:
        return None

    def load() -> Any:
        return load_initial(init, branch, like())

    loaded = [] if run.resume else [load()]
    # Handed over and not kept, for the state may be a large part of the memory.
    return lambda key: make(loaded.pop() if loaded else load(), key)


def load_initial(run: str, branch: str, like: Any) -> Any:
    """Return a branch of the state in a run's newest checkpoint, as arrays of `like`'s dtypes.

    Of a run of several seeds the first counts.

    Args:
        run: the run's folder, as --init names it.
        branch: path within the state, such as "params".
        like: tree of arrays or ShapeDtypeStructs that the branch must fit.

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
    source = f"checkpoint of step {found[1]['step']} in {path}"
    held = branch_of(arrays_of_seed(found[0], 0, source), branch)
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
