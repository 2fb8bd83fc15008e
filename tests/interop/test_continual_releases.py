"""Networks of continual learning to and from the releases' names and layout."""

import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.systems.continual.release import (
    mlp_from_release,
    mlp_names,
    mlp_to_release,
    resnet18_from_release,
    resnet18_names,
    resnet18_statistics,
    resnet18_statistics_to_release,
    resnet18_to_release,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shape_of(name, width=2, classes=3):
    """Of a release's array of ResNet-18."""
    if name.startswith("linear"):
        return (classes, 8 * width) if name.endswith("weight") else (classes,)
    stage = int(name[5]) if name.startswith("layer") else 1
    out = width * 2 ** (stage - 1)
    if not ("conv" in name or "shortcut.0" in name):
        return (out,)
    first = ".0.conv1" in name or "shortcut" in name
    inputs = 3 if name == "conv1.weight" else out // 2 if first and stage > 1 else out
    return (out, inputs, 1, 1) if "shortcut" in name else (out, inputs, 3, 3)


def resnet18():
    names = [*resnet18_names(), *resnet18_statistics()]
    return {name: normal(*shape_of(name), seed=index) for index, name in enumerate(names)}


def same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


def test_resnet18_there_and_back():
    arrays = resnet18()
    variables = resnet18_from_release(arrays)
    same(resnet18_to_release(variables.params), {name: arrays[name] for name in resnet18_names()})
    statistics = {name: arrays[name] for name in resnet18_statistics()}
    same(resnet18_statistics_to_release(variables.stats), statistics)


def test_resnet18_is_laid_out_as_ours():
    arrays = resnet18()
    params, stats = resnet18_from_release(arrays)
    kernel = params["layer3_0"]["conv1"]["kernel"]
    assert kernel.shape == (3, 3, 4, 8)
    assert kernel[0, 2, 1, 5] == arrays["layer3.0.conv1.weight"][5, 1, 0, 2]
    assert params["layer2_0"]["shortcut"]["kernel"].shape == (1, 1, 2, 4)
    assert params["linear"]["kernel"].shape == (16, 3)
    scale = params["layer2_0"]["shortcut_bn"]["scale"]
    np.testing.assert_array_equal(scale, arrays["layer2.0.shortcut.1.weight"])
    variance = stats["layer2_0"]["shortcut_bn"]["variance"]
    np.testing.assert_array_equal(variance, arrays["layer2.0.shortcut.1.running_var"])


def test_statistics_begin_as_a_fresh_network():
    stats = resnet18_from_release({name: resnet18()[name] for name in resnet18_names()}).stats
    written = resnet18_statistics_to_release(stats)
    assert all((array == name.endswith("var")).all() for name, array in written.items())


def test_perceptron_there_and_back():
    shapes = [(5, 4), (5,), (5, 5), (5,), (3, 5), (3,)]
    arrays = {name: normal(*shape) for name, shape in zip(mlp_names(), shapes, strict=True)}
    assert list(arrays)[::2] == ["fc1.weight", "fc2.weight", "classifier.weight"]
    params, stats = mlp_from_release(arrays)
    assert stats == {}
    assert params["layer_2"]["kernel"].shape == (5, 3)
    np.testing.assert_array_equal(params["layer_0"]["kernel"], arrays["fc1.weight"].T)
    same(mlp_to_release(params), arrays)


def test_what_does_not_belong():
    arrays = resnet18()
    with pytest.raises(UserError, match=r"bn1\.bias is missing"):
        resnet18_from_release({k: v for k, v in arrays.items() if k != "bn1.bias"})
    with pytest.raises(UserError, match=r"not \[out, in\]"):
        resnet18_from_release({**arrays, "linear.weight": np.zeros(3)})
    with pytest.raises(UserError, match="no layer_0/kernel"):
        mlp_to_release({})
