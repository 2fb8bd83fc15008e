"""First weights of a run, taken from another run or a release."""

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


def init_from_run(
    init: str | None,
    branch: str,
    like: Callable[[], Any],
    run: Run,
    make: Callable[[Any, jax.Array], Any],
) -> Callable[[jax.Array], Any] | None:
    """Return the function (a seed's key) -> its first state that `train` takes, None without init.

    Args:
        init: folder of the run whose weights are taken; None: no such run.
        branch: path of these weights within that run's state.
        like: makes the tree that the weights must fit; called only where init is given.
        run: the run that begins. If it resumes, the other one is read only where it has no
            checkpoint.
        make: (weights, a seed's key) -> the seed's first state.

    Raises:
        UserError: the weights of a new run are not there or do not fit.
    """
    if init is None:
        return None

    def load() -> Any:
        return load_initial(init, branch, like())

    loaded = [] if run.resume else [load()]
    # pop: the weights are not kept here, for they may take a large part of the memory.
    return lambda key: make(loaded.pop() if loaded else load(), key)


def load_initial(run: str, branch: str, like: Any) -> Any:
    """Return a branch of the state in a run's newest checkpoint, as arrays of `like`'s dtypes.

    A run of several seeds gives the state of the first.

    Args:
        run: the run's folder, as `init` names it.
        branch: path within the state, such as "params".
        like: tree of arrays or ShapeDtypeStructs that the branch must fit.

    Raises:
        UserError: there is no such run or checkpoint, or an array does not fit.
    """
    path = Path(run)
    if not path.is_dir():
        raise UserError(f"There is no run folder {path}: check the path given as init.")
    read_description(path)
    newest = read_newest(path / "checkpoints")
    if newest is None:
        raise UserError(f"{path} has no checkpoint to begin with: name another run as init.")
    saved, record = newest
    source = f"checkpoint of step {record['step']} in {path}"
    weights = branch_of(arrays_of_seed(saved, 0, source), branch)
    names, leaves = leaf_names(like), jax.tree.leaves(like)
    misfit = first_misfit(weights, dict(zip(names, leaves, strict=True)))
    if misfit is not None:
        name, shape, expected = misfit
        raise UserError(
            f"The weights of {path} do not fit this run: {name} is {shape} there, but {expected} "
            "here; set the network as there, or name another run as init."
        )
    arrays = [
        # Copied, for the loop donates the state's buffers and NumPy's are not JAX's to overwrite.
        jnp.array(np.asarray(weights[name], leaf.dtype))
        for name, leaf in zip(names, leaves, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), arrays)


def first_misfit(
    arrays: Mapping[str, Any], expected: Mapping[str, Any]
) -> tuple[str, list[int] | str, list[int] | str] | None:
    """Return the first array whose shape is not the expected one, or None if there is none.

    Args:
        arrays: arrays by name.
        expected: arrays or ShapeDtypeStructs by name.

    Returns:
        The array's name, its shape and the expected one; "absent" in place of a shape where one of
        the two lacks the array.
    """
    for name in (*expected, *arrays):
        shape, expected_shape = (
            list(leaves[name].shape) if name in leaves else "absent"
            for leaves in (arrays, expected)
        )
        if shape != expected_shape:
            return name, shape, expected_shape
    return None
