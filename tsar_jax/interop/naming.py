"""The arrays in a file that belong to a release's network, and their names."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.errors import MAX_TEXT, UserError, escaped

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of batch norm's running statistics."""
MLP_ALIASES = {
    "fc1": ("_features.0", "net.0.0"),
    "fc2": ("_features.2", "net.0.2"),
    "classifier": ("net.1",),
}
"""Further names of each layer of the release's perceptron."""
RESNET_STEM = {"conv1": "_features.0", "bn1": "_features.1", "linear": "classifier"}
"""Further names of the layers of the release's ResNet-18 outside its blocks."""


def in_order(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a network's parameters by their names in the file, in the release's order.

    ANML's and TSAR's releases keep them in one list, `vars.0`, `vars.1`, ...; where no array has
    such a name, those of the file are taken in its order, without batch norm's running statistics.

    Raises:
        UserError: the file has several such lists.
    """
    listed = sorted(
        (int(match[1]), name)
        for name in arrays
        if (match := re.fullmatch(r"(?:.*\.)?vars\.(\d{1,6})", name))
    )
    lists = {name.rpartition("vars.")[0] for _, name in listed}
    if len(lists) > 1:
        first, second, *_ = (f"{prefix}vars" for prefix in sorted(lists))
        raise UserError(
            f"The file has several networks, such as {first} and {second}: name a file with one."
        )
    if listed:
        return {name: arrays[name] for _, name in listed}
    return {name: array for name, array in arrays.items() if not name.endswith(BUFFERS)}


def without_prefix(arrays: Mapping[str, np.ndarray], first: str) -> dict[str, np.ndarray]:
    """Return the network's arrays by their names without a prefix, such as `module.` for GPUs.

    first: name of the network's first array without the prefix.
    """
    # The shortest prefix counts, for the network's blocks may have arrays of that name too.
    ends = (name.removesuffix(first) for name in arrays if f".{name}".endswith(f".{first}"))
    prefix = min(ends, key=len, default="")
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def with_mlp_aliases(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a perceptron's arrays under all their names in the release's module."""
    named = dict(arrays)
    for layer, others in MLP_ALIASES.items():
        for other in others:
            named |= {f"{other}.{leaf}": arrays[f"{layer}.{leaf}"] for leaf in ("weight", "bias")}
    return named


def with_resnet18_aliases(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return ResNet-18's arrays under all their names in the release's module.

    The counts of batches that batch norm has seen are 0, for nothing uses them.
    """
    counted = {
        name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
        for name in arrays
        if name.endswith("running_mean")
    }
    own = {**arrays, **counted}
    named = dict(own)
    for name, array in own.items():
        module, _, rest = name.partition(".")
        if module.startswith("layer"):
            named[f"_features.{int(module[5:]) + 1}.{rest}"] = array
        else:
            named[f"{RESNET_STEM[module]}.{rest}"] = array
    return named


def check_arrays(arrays: Mapping[str, np.ndarray]) -> None:
    """Check a network's arrays, before anything relies on their shapes.

    Raises:
        UserError: an array is not of numbers, is a scalar or empty, or has a number that is not
            finite in float32, the dtype of this project's weights.
    """
    for name, array in arrays.items():
        as_weights(name, array)
        if array.ndim == 0 or array.size == 0:
            raise UserError(
                f"Array {escaped(name, MAX_TEXT)} has shape {list(array.shape)}, as no weights "
                "have: check the file."
            )


def as_weights(name: str, array: Any) -> np.ndarray:
    """Return a release's array as float32, the dtype of this project's weights.

    Where JAX computes in 64 bits, a float64 array keeps its dtype.

    Args:
        name: the array's name, for error messages.
        array: floats or integers, as an array of NumPy or JAX or as nested lists.

    Raises:
        UserError: it holds anything else, such as booleans, complex numbers, texts or objects, or
            a number that is not finite in float32.
    """
    name = escaped(name, MAX_TEXT)
    try:
        given = np.asarray(array)
    # A tensor of PyTorch that requires a gradient raises RuntimeError; RecursionError is one too.
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(f"Array {name} is no array of numbers: pass one.") from error
    # bfloat16 is not among NumPy's own floats.
    real = jnp.issubdtype(given.dtype, jnp.floating) or jnp.issubdtype(given.dtype, jnp.integer)
    if given.dtype.kind not in "fiuV" or not real:
        raise UserError(
            f"Array {name} is not of numbers but of {escaped(str(given.dtype), MAX_TEXT)}: name a "
            "file whose weights are, or pass real numbers."
        )
    wide = given.dtype == jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    dtype = np.dtype(np.float64 if wide else np.float32)
    with np.errstate(over="ignore"):
        cast = given.astype(dtype, copy=False)
    if not np.isfinite(cast).all():
        raise UserError(f"Array {name} is not finite in {dtype}: name a file whose weights are.")
    return cast
