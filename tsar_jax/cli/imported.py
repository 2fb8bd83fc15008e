"""Shared parts of the imports: a state with its config, and checks against the files."""

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
    """An imported run: a state as training would have left it, with its config.

    experiment: name of the experiment. step: step of the checkpoint. remarks: lines to print.
    finish: writes further files of the run.
    """

    experiment: str
    config: Any
    state: Any
    step: int
    remarks: tuple[str, ...] = ()
    finish: Callable[[Run], None] | None = None


def settings(
    kind: str, config: Config, argv: list[str], fixed: Mapping[str, Any], text: str
) -> Config:
    """Return the config with the changes that flags make.

    Args:
        kind: kind of the file.
        config: the default.
        argv: the flags.
        fixed: fields that follow from the file.
        text: description, for --help.

    Raises:
        UserError: a flag contradicts the file.
    """
    fixed = {**fixed, "seeds": 1}
    default = dataclasses.replace(config, **fixed)  # type: ignore[type-var]
    usage = f"import {kind} FILE --out FOLDER"
    parsed = cli.parse_config(type(default), default, argv, usage, text)
    for name, value in fixed.items():
        if getattr(parsed, name) != value:
            flag = "--" + name.replace("_", "-")
            raise UserError(
                f"{name} is {value} in the file, not {getattr(parsed, name)}: leave out {flag}."
            )
    return parsed


def as_float32(tree: Any) -> Any:
    """Return a tree's arrays as arrays of JAX, in float32."""
    return jax.tree.map(lambda array: jnp.array(np.asarray(array, np.float32)), tree)


def check_shapes(tree: Any, like: Any, network: str, option: str) -> None:
    """Raise UserError where an array of a file has another shape than the network's.

    Args:
        tree: the file's arrays.
        like: the network's arrays or ShapeDtypeStructs.
        network: description of the network, for the message.
        option: the flag by which another network is chosen.
    """
    arrays, expected = (
        dict(zip(leaf_names(leaves), jax.tree.leaves(leaves), strict=True))
        for leaves in (tree, like)
    )
    misfit = first_misfit(arrays, expected)
    if misfit is not None:
        name, shape, needed = misfit
        raise UserError(
            f"{name} is {shape} in the file, but {needed} in {network}: change {option}."
        )
