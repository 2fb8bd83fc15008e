"""Parameters to and from the releases' layout, and what the releases compute from them."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsar_jax.errors import UserError
from tsar_jax.networks import ANML, OML, run_stages
from tsar_jax.systems.episodic.release import from_release, release_names, to_release

KINDS = ("anml", "oml")


def trunk_shapes(width):
    convolutions = [(width, before, 3, 3) for before in (3, width, width)]
    return [shape for conv in convolutions for shape in (conv, (width,), (width,), (width,))]


def release_shapes(kind, channels=2, other=3, classes=4):
    """Shapes of a release's arrays. other: channels of the gate's network, or hidden units."""
    if kind == "anml":
        gate = [(9 * channels, 9 * other), (9 * channels,)]
        head = [(classes, 9 * channels), (classes,)]
        return trunk_shapes(other) + gate + trunk_shapes(channels) + head
    convolutions = [(channels, before, 3, 3) for before in (3, *[channels] * 5)]
    conv_arrays = [shape for conv in convolutions for shape in (conv, (channels,))]
    return [*conv_arrays, (other, 9 * channels), (other,), (classes, other), (classes,)]


def release(kind, seed=0, **widths):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in release_shapes(kind, **widths)]


widths = st.integers(1, 5)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(channels=widths, other=widths, classes=widths)
def test_there_and_back(kind, channels, other, classes):
    arrays = release(kind, channels=channels, other=other, classes=classes)
    params = from_release(kind, arrays)
    back = to_release(kind, params)
    for one, two in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(one, two)
    again = from_release(kind, back)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_order_is_the_published_one():
    names = release_names("anml")
    assert len(names) == len(set(names)) == 28
    layers = ("kernel", "bias", "scale", "offset")  # convolution's weight, bias; norm's gain, bias
    assert names[:12] == [f"neuromodulator/trunk/block_{i}/{x}" for i in range(3) for x in layers]
    assert names[12:14] == ["neuromodulator/gate/kernel", "neuromodulator/gate/bias"]
    assert names[14:26] == [f"trunk/block_{i}/{x}" for i in range(3) for x in layers]
    assert names[26:] == ["head/kernel", "head/bias"]
    names = release_names("oml")
    assert len(names) == len(set(names)) == 16
    assert names[:12] == [f"representation/conv_{i}/{x}" for i in range(6) for x in layers[:2]]
    assert names[12:] == ["hidden/kernel", "hidden/bias", "head/kernel", "head/bias"]


def convolve(x, weight, bias, stride=1):
    """x [N, C, H, W], weight [out, in, 3, 3]."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]


def blocks(x, arrays):
    """Conv, batch norm of one image, ReLU, max pool after the first two; flattened."""
    for index in range(3):
        weight, bias, gain, shift = arrays[4 * index : 4 * index + 4]
        x = convolve(x, weight, bias)
        x = (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5)
        x = np.maximum(x * gain[:, None, None] + shift[:, None, None], 0)
        if index < 2:
            n, c, h, w = x.shape
            x = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
            x = x.max((3, 5))
    return x.reshape(len(x), -1)


def forward(kind, arrays, x):
    """The release's network, in NumPy, float64, channels first."""
    arrays = [array.astype(np.float64) for array in arrays]
    if kind == "anml":
        gate = 1 / (1 + np.exp(-(blocks(x, arrays[:12]) @ arrays[12].T + arrays[13])))
        return (blocks(x, arrays[14:26]) * gate) @ arrays[26].T + arrays[27]
    for index, stride in enumerate((1, 1, 1, 2, 1, 2)):
        x = np.maximum(convolve(x, arrays[2 * index], arrays[2 * index + 1], stride), 0)
    hidden = np.maximum(x.reshape(len(x), -1) @ arrays[12].T + arrays[13], 0)
    return hidden @ arrays[14].T + arrays[15]


@pytest.mark.parametrize("kind", KINDS)
def test_network_computes_what_the_release_does(kind):
    arrays = release(kind, seed=1)
    if kind == "oml":
        arrays = [array / 2 for array in arrays]
        for index in (*range(1, 12, 2), 12, 13):  # so that no unit is dead
            arrays[index] = np.abs(arrays[index])
    network = {
        "anml": ANML(channels=2, gate_channels=3, classes=4),
        "oml": OML(channels=2, hidden_features=3, classes=4),
    }[kind]
    images = np.random.default_rng(2).normal(size=(2, 3, 28, 28)).astype(np.float32)
    wanted = forward(kind, arrays, images.astype(np.float64))
    params = from_release(kind, arrays)
    run = jax.jit(lambda p, x: run_stages(network, p, x))
    ours = run(params, images.transpose(0, 2, 3, 1))
    assert np.ptp(wanted, axis=0).max() > 1e-2
    np.testing.assert_allclose(ours, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_count_is_refused(kind):
    arrays = release(kind)
    for wrong in (arrays[:-1], [*arrays, arrays[0]], []):
        with pytest.raises(UserError, match=f"has {len(arrays)} arrays, not {len(wrong)}"):
            from_release(kind, wrong)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=16, deadline=None)
@given(data=st.data())
def test_wrong_rank_is_refused_by_name(kind, data):
    arrays = release(kind)
    index = data.draw(st.integers(0, len(arrays) - 1))
    arrays[index] = data.draw(st.sampled_from([arrays[index][None], np.float32(1)]))
    name = release_names(kind)[index]
    with pytest.raises(UserError, match=rf"Array {index} .*\({name}\) has shape .* expected \["):
        from_release(kind, arrays)


@pytest.mark.parametrize(
    ("kind", "index", "shape", "named"),
    [
        ("anml", 0, (3, 3, 5, 5), "Array 0 "),  # not 3x3
        ("anml", 2, (4,), "Array 2 "),
        ("anml", 12, (18, 26), "Array 12 .*multiple of 9"),
        ("anml", 12, (9, 27), "Array 12 "),
        ("anml", 18, (2, 3, 3, 3), "Array 18 "),
        ("anml", 26, (5, 18), "Array 26 "),
        ("oml", 4, (3, 2, 3, 3), "Array 4 "),
        ("oml", 12, (3, 9), "Array 12 "),
        ("oml", 14, (3, 4), "Array 14 "),
    ],
)
def test_wrong_shape_is_refused_by_name(kind, index, shape, named):
    arrays = release(kind)
    arrays[index] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match=named) as error:
        from_release(kind, arrays)
    assert f"({release_names(kind)[index]})" in str(error.value)
    assert str(list(shape)) in str(error.value)


def test_unknown_kind_is_refused():
    message = "There is no kind of release 'maml': choose from anml, oml"
    for call in (
        functools.partial(release_names, "maml"),
        functools.partial(from_release, "maml", []),
        functools.partial(to_release, "maml", {}),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_parameters_of_another_kind_are_refused_by_name():
    params = from_release("oml", release("oml"))
    with pytest.raises(UserError, match=r"have no neuromodulator/trunk/block_0/kernel.*'anml'"):
        to_release("anml", params)
    del params["head"]["bias"]
    with pytest.raises(UserError, match=r"have no head/bias.*'oml'"):
        to_release("oml", params)
