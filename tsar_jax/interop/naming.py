"""Which of a file's arrays a release's network is made of, and what it calls them."""

import re
from collections.abc import Mapping

import numpy as np

from tsar_jax.errors import UserError

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
MLP_ALIASES = {
    "fc1": ("_features.0", "net.0.0"),
    "fc2": ("_features.2", "net.0.2"),
    "classifier": ("net.1",),
}
"""Further names that the release's perceptron has for a layer."""
RESNET_STEM = {"conv1": "_features.0", "bn1": "_features.1", "linear": "classifier"}


def in_order(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return a network's parameters in the release's order.

    ANML's and TSAR's releases keep them in one list, `vars.0`, `vars.1`, ...; where no array has
    such a name, those of the file are taken in its order, without batch norm's running statistics.
    """
    listed = {
        int(found[1]): array
        for name, array in arrays.items()
        if (found := re.fullmatch(r"(?:.*\.)?vars\.(\d{1,6})", name))
    }
    if listed:
        return [listed[index] for index in sorted(listed)]
    return [array for name, array in arrays.items() if not name.endswith(BUFFERS)]


def without_prefix(arrays: Mapping[str, np.ndarray], first: str) -> dict[str, np.ndarray]:
    """Return the arrays under the names that they have within the network.

    first: the network's first array, by whose name in the file the prefix is found, such as
    `module.` of a network on several GPUs.
    """
    prefix = next((name.removesuffix(first) for name in arrays if name.endswith(first)), "")
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


def check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise UserError where a number among the arrays is infinite or none."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"Array {name} is not finite: name a file whose weights are.")
