"""Which of a file's arrays a release's network is made of, and what it calls them."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.errors import MAX_TEXT, UserError, escaped

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
MLP_ALIASES = {
    "fc1": ("_features.0", "net.0.0"),
    "fc2": ("_features.2", "net.0.2"),
    "classifier": ("net.1",),
}
"""Further names that the release's perceptron has for a layer."""
RESNET_STEM = {"conv1": "_features.0", "bn1": "_features.1", "linear": "classifier"}


def in_order(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a network's parameters by their names in the file, in the release's order.

    ANML's and TSAR's releases keep them in one list, `vars.0`, `vars.1`, ...; where no array has
    such a name, those of the file are taken in its order, without batch norm's running statistics.

    Raises:
        UserError: the file has several such lists.
    """
    listed = sorted(
        (int(found[1]), name)
        for name in arrays
        if (found := re.fullmatch(r"(?:.*\.)?vars\.(\d{1,6})", name))
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
    """Return the arrays under the names that they have within the network.

    first: the network's first array, by whose name in the file the prefix is found, such as
    `module.` of a network on several GPUs.
    """
    # The shortest, for its blocks have arrays of that name too, and so may their aliases.
    ends = (name.removesuffix(first) for name in arrays if f".{name}".endswith(f".{first}"))
    prefix = min(ends, key=len, default="")
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def with_mlp_aliases(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a perceptron's arrays under all names that the release's module has for them."""
    named = dict(arrays)
    for layer, others in MLP_ALIASES.items():
        for other in others:
            named |= {f"{other}.{leaf}": arrays[f"{layer}.{leaf}"] for leaf in ("weight", "bias")}
    return named


def with_resnet18_aliases(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return ResNet-18's arrays under all names that the release's module has for them.

    Its batches counted, which no one needs, are 0.
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
    """Check the arrays that a network is made of, before anything relies on their shapes.

    Raises:
        UserError: one is not of numbers, is a single number, has none, or has one that is
            infinite in float32, the type of our weights, or not a number.
    """
    for name, array in arrays.items():
        as_weights(name, array)
        if array.ndim == 0 or array.size == 0:
            raise UserError(
                f"Array {escaped(name, MAX_TEXT)} has shape {list(array.shape)}, as no weights "
                "have: check the file."
            )


def as_weights(name: str, array: Any) -> np.ndarray:
    """Return a release's array as float32, the type of our weights.

    Where JAX computes in 64 bits, what is float64 stays so.

    Args:
        name: what it is called, for the sentence of an error.
        array: of floats or integers, NumPy's, JAX's or nested lists.

    Raises:
        UserError: it is of anything else, such as booleans, complex numbers, texts or objects, or
            has a number that is not finite in float32.
    """
    name = escaped(name, MAX_TEXT)
    try:
        given = np.asarray(array)
    # RuntimeError, with RecursionError: a tensor of PyTorch that requires its gradient.
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
