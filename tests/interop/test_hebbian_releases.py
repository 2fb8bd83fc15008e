"""Hebbian coefficients and pixel policies in the original release's order, there and back."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsar_jax.errors import UserError
from tsar_jax.networks.hebbian_network import FEATURES, KERNELS, forward, image_features
from tsar_jax.systems.hebbian.release import (
    PixelPolicy,
    coevolved_from_release,
    coevolved_to_release,
    hebbian_coefficients_from_release,
    hebbian_coefficients_to_release,
    pixel_policy_from_release,
    pixel_policy_to_release,
)

DENSE = ((5, FEATURES), (4, 5), (3, 4))


def released_policy(seed=0):
    """Two convolutions [out, in, k, k] and three dense layers [out, in]."""
    rng = np.random.default_rng(seed)
    shapes = [kernel[::-1] for kernel in KERNELS] + list(DENSE)
    return [rng.normal(size=shape, scale=0.2).astype(np.float32) for shape in shapes]


def released_features(kernels, image):
    """What the release's convolutions make of an image [3, width, height], flattened."""
    x = image
    for kernel, stride in zip(kernels, (1, 2), strict=True):
        side = kernel.shape[-1]
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))
        x = np.tanh(np.einsum("cwhij,dcij->dwh", windows[:, ::stride, ::stride], kernel))
        end = x.shape[1] // 2 * 2
        x = np.max([x[:, i:end:2, j:end:2] for i in (0, 1) for j in (0, 1)], axis=0)
    assert x.shape == (8, 9, 9)
    return x.reshape(-1)


def test_a_mapped_pixel_policy_says_what_it_said() -> None:
    arrays = released_policy()
    picture = np.random.default_rng(1).uniform(size=(84, 84, 3)).astype(np.float32)
    activity = released_features(arrays[:2], picture.transpose(2, 1, 0))
    policy = pixel_policy_from_release(arrays)
    ours = forward(
        tuple(map(jnp.asarray, policy.weights)),
        image_features(tuple(map(jnp.asarray, policy.kernels)), jnp.asarray(picture)),
        bounded=False,
    )
    for weights, found in zip(arrays[2:], ours[1:], strict=True):
        activity = weights @ activity
        if len(weights) > 3:
            activity = np.tanh(activity)
        assert np.abs(activity).max() > 0.1
        np.testing.assert_allclose(found, activity, atol=1e-5)


def test_a_pixel_policy_comes_back_as_it_was() -> None:
    arrays = released_policy()
    back = pixel_policy_to_release(pixel_policy_from_release(arrays))
    assert len(back) == len(arrays)
    for one, other in zip(back, arrays, strict=True):
        np.testing.assert_array_equal(one, other)


def numbered_rows(sizes):
    """A row of each synapse that tells its layer, its input and its output."""
    return np.array(
        [
            (layer, source, to)
            for layer, (into, out) in enumerate(itertools.pairwise(sizes))
            for source in range(into)
            for to in range(out)
        ]
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4))
def test_every_row_finds_its_synapse_and_back(sizes) -> None:
    rows = numbered_rows(sizes)
    layers = hebbian_coefficients_from_release(rows, sizes)
    assert len(layers) == len(sizes) - 1
    for number, found in enumerate(layers):
        out, into = sizes[number + 1], sizes[number]
        wanted = np.indices((out, into))[::-1]
        np.testing.assert_array_equal(found, [np.full((out, into), number), *wanted])
    np.testing.assert_array_equal(hebbian_coefficients_to_release(layers), rows)


def test_one_coefficient_a_synapse_needs_no_second_axis() -> None:
    layers = hebbian_coefficients_from_release(np.arange(8.0), (3, 2, 1))
    np.testing.assert_array_equal(layers[0], [[[0, 2, 4], [1, 3, 5]]])
    np.testing.assert_array_equal(layers[1], [[[6, 7]]])
    back = hebbian_coefficients_to_release(layers)
    np.testing.assert_array_equal(back, np.arange(8.0)[:, None])


def test_of_pixels_the_first_layers_rows_find_their_feature() -> None:
    sizes = (FEATURES, 3, 2)
    rows = numbered_rows(sizes)
    first, second = hebbian_coefficients_from_release(rows, sizes, pixels=True)
    feature = first[1, 0].reshape(9, 9, 8)
    height, width, channel = np.indices((9, 9, 8))
    np.testing.assert_array_equal(feature, 81 * channel + 9 * width + height)
    np.testing.assert_array_equal(first[1], np.stack([first[1, 0]] * 3))
    np.testing.assert_array_equal(second, hebbian_coefficients_from_release(rows, sizes)[1])
    np.testing.assert_array_equal(
        hebbian_coefficients_to_release((first, second), pixels=True), rows
    )


def test_coefficients_follow_the_features_of_a_mapped_policy() -> None:
    """What a synapse's weight is mapped to, its coefficients are."""
    weights = released_policy()[2:]
    rows = np.concatenate([w.T.reshape(-1) for w in weights])
    sizes = (FEATURES, *(len(w) for w in weights))
    mapped = hebbian_coefficients_from_release(rows, sizes, pixels=True)
    wanted = pixel_policy_from_release(released_policy()).weights
    for found, layer in zip(mapped, wanted, strict=True):
        np.testing.assert_array_equal(found, layer[None])


def test_rows_of_another_network_are_named() -> None:
    with pytest.raises(UserError, match=r"7 rows of coefficients, but layers of \(3, 2, 1\) units"):
        hebbian_coefficients_from_release(np.zeros((7, 5)), (3, 2, 1))


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda arrays: arrays[:4],
        lambda arrays: [*arrays, arrays[-1]],
        lambda arrays: [arrays[1], arrays[0], *arrays[2:]],
        lambda arrays: [*arrays[:2], arrays[2][:, 1:], *arrays[3:]],
        lambda arrays: [*arrays[:2], arrays[2].T, *arrays[3:]],
        lambda arrays: [*arrays[:4], arrays[4][None]],
        lambda arrays: [*arrays[:3], arrays[3][:, 1:], arrays[4]],
    ],
    ids=["too few", "too many", "order", "features", "transposed", "rank", "chain"],
)
def test_arrays_that_are_no_pixel_policy_are_named(spoilt) -> None:
    with pytest.raises(UserError, match=r"no pixel policy: it has \(6, 3, 3, 3\), \(8, 6, 5, 5\)"):
        pixel_policy_from_release(spoilt(released_policy()))


@pytest.mark.parametrize("pixels", [True, False])
def test_what_evolved_along_is_mapped_as_a_policy_is_and_comes_back(pixels) -> None:
    arrays = released_policy()
    sizes = (FEATURES, *(len(weights) for weights in arrays[2:]))
    wanted = pixel_policy_from_release(arrays) if pixels else PixelPolicy((), tuple(arrays[2:]))
    row = np.concatenate([array.reshape(-1) for array in arrays[0 if pixels else 2 :]])
    found = coevolved_from_release(row[:, None], sizes, pixels=pixels)
    assert [len(part) for part in found] == [len(part) for part in wanted]
    for one, other in zip(itertools.chain(*found), itertools.chain(*wanted), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(coevolved_to_release(found), row)
    with pytest.raises(UserError, match="numbers that evolved along"):
        coevolved_from_release(row[1:], sizes, pixels=pixels)
