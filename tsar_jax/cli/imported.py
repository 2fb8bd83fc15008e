"""What the kinds of imported weights share: a state with its config, and settings checked."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax import cli
from tsar_jax.errors import UserError
from tsar_jax.training.checkpoints import leaf_names
from tsar_jax.training.initial import first_misfit
from tsar_jax.training.run import Run

Config = TypeVar("Config")


class Imported(NamedTuple):
    """A state as training would have left it.

    experiment: whose run it is. step: of the checkpoint. finish: what else is written to the run.
    said: lines to print.
    """

    experiment: str
    config: Any
    state: Any
    step: int
    said: tuple[str, ...] = ()
    finish: Callable[[Run], None] | None = None


def settings(
    kind: str, config: Config, argv: list[str], fixed: Mapping[str, Any], text: str
) -> Config:
    """Return the config with what flags change of it.

    fixed: fields that the file tells. Raises UserError where a flag contradicts them.
    """
    fixed = {**fixed, "seeds": 1}
    default = dataclasses.replace(config, **fixed)  # type: ignore[type-var]
    asked = cli.parse_config(type(default), default, argv, f"import {kind} FILE --out FOLDER", text)
    for name, value in fixed.items():
        if getattr(asked, name) != value:
            flag = "--" + name.replace("_", "-")
            raise UserError(
                f"{name} is {value} in the file, not {getattr(asked, name)}: leave out {flag}."
            )
    return asked


def as_float32(tree: Any) -> Any:
    """Return a tree's arrays as JAX's own, in float32."""
    return jax.tree.map(lambda array: jnp.array(np.asarray(array, np.float32)), tree)


def check_shapes(tree: Any, like: Any, what: str, option: str) -> None:
    """Raise UserError that names the first array of a file which another network has otherwise.

    what: the network; option: by which another is named.
    """
    held, wanted = (
        dict(zip(leaf_names(arrays), jax.tree.leaves(arrays), strict=True))
        for arrays in (tree, like)
    )
    misfit = first_misfit(held, wanted)
    if misfit is not None:
        name, found, needed = misfit
        raise UserError(f"{name} is {found} in the file, but {needed} in {what}: change {option}.")
