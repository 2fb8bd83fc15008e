"""Networks of continual learning to and from the original releases' names and layout.

A release's arrays have names such as layer2.0.conv1.weight; convolutions are [out, in, kh, kw] and
dense weights [out, in], where ours are [kh, kw, in, out] and [in, out]. Images are grey or channel
first; no network flattens more than one channel, so no axis is reordered.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tsar_jax.errors import UserError
from tsar_jax.interop.naming import as_weights
from tsar_jax.networks.classifier import Tree, Variables

# Names of a norm's running statistics in the releases and here.
STATISTICS = {"running_mean": "mean", "running_var": "variance"}
MLP_LAYERS = {"layer_0": "fc1", "layer_1": "fc2", "layer_2": "classifier"}


def mlp_names() -> list[str]:
    """Return a release's names of the multilayer perceptron's arrays, in the release's order."""
    return [f"{layer}.{leaf}" for layer in MLP_LAYERS.values() for leaf in ("weight", "bias")]


def resnet18_names() -> list[str]:
    """Return a release's names of ResNet-18's arrays, in the release's order, without
    statistics.
    """
    names = ["conv1.weight", *_affine("bn1")]
    for block in _blocks():
        for index in (1, 2):
            names += [f"{block}.conv{index}.weight", *_affine(f"{block}.bn{index}")]
        if _has_shortcut(block):
            names += [f"{block}.shortcut.0.weight", *_affine(f"{block}.shortcut.1")]
    return [*names, *_affine("linear")]


def resnet18_statistics() -> list[str]:
    """Return a release's names of ResNet-18's running statistics, in the release's order."""
    norms = ["bn1"]
    for block in _blocks():
        norms += [f"{block}.bn1", f"{block}.bn2"]
        if _has_shortcut(block):
            norms.append(f"{block}.shortcut.1")
    return [f"{norm}.{leaf}" for norm in norms for leaf in STATISTICS]


def _affine(name: str) -> list[str]:
    return [f"{name}.weight", f"{name}.bias"]


def _blocks() -> list[str]:
    return [f"layer{stage}.{index}" for stage in (1, 2, 3, 4) for index in (0, 1)]


def _has_shortcut(block: str) -> bool:
    return block.endswith(".0") and block != "layer1.0"


def mlp_from_release(arrays: Mapping[str, np.ndarray]) -> Variables:
    """Return a release's perceptron, given by name, as variables. Raises UserError: wrong
    arrays.
    """
    return Variables(_read(mlp_names(), arrays, _mlp_path), {})


def mlp_to_release(params: Tree) -> dict[str, np.ndarray]:
    """Return a perceptron's parameters, or a tree like them, by a release's names, in its order."""
    return _write(mlp_names(), params, _mlp_path)


def resnet18_from_release(arrays: Mapping[str, np.ndarray]) -> Variables:
    """Return a release's ResNet-18, given by name, as variables.

    Without running statistics: mean 0 and variance 1, the initial ones.

    Raises:
        UserError: a name is missing, or an array's rank is wrong or its numbers are not finite.
    """
    params = _read(resnet18_names(), arrays, _resnet_path)
    names = resnet18_statistics()
    if any(name in arrays for name in names):
        return Variables(params, _read(names, arrays, _resnet_path))
    fresh = {}
    for name in names:
        norm, _, leaf = name.rpartition(".")
        like = np.ones_like if leaf == "running_var" else np.zeros_like
        fresh[name] = like(arrays[f"{norm}.bias"])
    return Variables(params, _read(names, fresh, _resnet_path))


def resnet18_to_release(params: Tree) -> dict[str, np.ndarray]:
    """Return ResNet-18's parameters, or a tree like them, by a release's names, in its order."""
    return _write(resnet18_names(), params, _resnet_path)


def resnet18_statistics_to_release(stats: Tree) -> dict[str, np.ndarray]:
    """Return running statistics by a release's names, in its order."""
    return _write(resnet18_statistics(), stats, _resnet_path)


def _mlp_path(name: str) -> list[str]:
    """Return the path of a release's name: fc1.weight -> layer_0, kernel."""
    theirs, leaf = name.split(".")
    (ours,) = (key for key, value in MLP_LAYERS.items() if value == theirs)
    return [ours, "kernel" if leaf == "weight" else leaf]


def _resnet_path(name: str) -> list[str]:
    """Return the path of a release's name: layer2.0.shortcut.1.weight -> layer2_0, shortcut_bn,
    scale.
    """
    *modules, leaf = name.split(".")
    folders = []
    if modules[0].startswith("layer"):
        stage, index, *modules = modules
        folders.append(f"{stage}_{index}")
    if modules[0] == "shortcut":
        modules = ["shortcut" if modules[1] == "0" else "shortcut_bn"]
    (module,) = modules
    if leaf == "weight":
        leaf = "scale" if "bn" in module else "kernel"
    return [*folders, module, STATISTICS.get(leaf, leaf)]


def _rank(path: list[str]) -> int:
    if path[-1] != "kernel":
        return 1
    return 4 if "conv" in path[-2] or path[-2] == "shortcut" else 2


def _read(names: Iterable[str], arrays: Mapping[str, np.ndarray], path_of: Any) -> Tree:
    tree: dict[str, Any] = {}
    for name in names:
        if name not in arrays:
            raise UserError(f"The release's array {name} is missing: pass all of them, by name.")
        *folders, leaf = path_of(name)
        rank = _rank([*folders, leaf])
        array = as_weights(name, arrays[name])
        if array.ndim != rank:
            want = {1: "[n]", 2: "[out, in]", 4: "[out, in, kh, kw]"}[rank]
            raise UserError(f"Array {name} has shape {list(array.shape)}, not {want}.")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = _from_release(array)
    return tree


def _write(names: Iterable[str], tree: Tree, path_of: Any) -> dict[str, np.ndarray]:
    written = {}
    for name in names:
        node = tree
        for part in path_of(name):
            if part not in node:
                raise UserError(f"These parameters have no {'/'.join(path_of(name))}.")
            node = node[part]
        written[name] = _to_release(node)
    return written


def _from_release(array: Any) -> Any:
    """Transpose [out, in, kh, kw] -> [kh, kw, in, out], [out, in] -> [in, out], [n] -> [n]."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _to_release(array: Any) -> Any:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
