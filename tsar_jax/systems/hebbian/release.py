"""Hebbian coefficients and pixel policies to and from the original release's order and layout.

The release keeps one row of coefficients per synapse, layer after layer, the synapse from input i
to output j of a layer being its row n_out i + j. Its images are [channel, width, height], and its
convolutions' features flatten in that order.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tsar_jax.errors import UserError
from tsar_jax.interop.naming import as_weights
from tsar_jax.networks.hebbian_network import FEATURES, KERNELS, layer_shapes

Layers = tuple[np.ndarray, ...]
SIDE, CHANNELS = 9, KERNELS[-1][-1]
"""Side and channels of the feature maps that the dense layers take."""


class PixelPolicy(NamedTuple):
    """Weights of a pixel policy.

    kernels: [k, k, in, out] of the two convolutions. weights: [out, in] of the dense layers.
    """

    kernels: Layers
    weights: Layers


def hebbian_coefficients_from_release(
    rows: np.ndarray, sizes: Sequence[int], *, pixels: bool = False
) -> Layers:
    """Return rows [synapses, k] (or [synapses] for k = 1) as one array [k, out, in] per layer.

    Args:
        rows: the release's coefficients.
        sizes: units of every layer, the inputs first.
        pixels: whether the inputs are a pixel policy's features.

    Raises:
        UserError: the number of rows is not that of the layers' synapses, or a number is not
            finite.
    """
    rows = as_weights("of coefficients", rows)
    if rows.ndim not in (1, 2) or not rows.size:
        raise UserError(
            f"Array of coefficients has shape {list(rows.shape)}, not [synapses, k]: pass that."
        )
    rows = rows.reshape(len(rows), -1)
    shapes = layer_shapes(sizes)
    ends = np.cumsum([out * into for out, into in shapes])
    if len(rows) != ends[-1]:
        raise UserError(
            f"There are {len(rows)} rows of coefficients, but layers of {tuple(sizes)} units have "
            f"{ends[-1]} synapses: check the sizes."
        )
    layers = [
        part.reshape(into, out, -1).transpose(2, 1, 0)
        for part, (out, into) in zip(np.split(rows, ends[:-1]), shapes, strict=True)
    ]
    if pixels:
        layers[0] = _features_last(layers[0])
    return tuple(layers)


def hebbian_coefficients_to_release(coefficients: Layers, *, pixels: bool = False) -> np.ndarray:
    """Undo `hebbian_coefficients_from_release`: return [synapses, k]."""
    layers = [np.asarray(layer) for layer in coefficients]
    if pixels:
        layers[0] = _features_first(layers[0])
    return np.concatenate([layer.transpose(2, 1, 0).reshape(-1, len(layer)) for layer in layers])


def pixel_policy_from_release(arrays: Sequence[np.ndarray]) -> PixelPolicy:
    """Return the release's five arrays, two convolutions and three dense layers, in this layout.

    Raises:
        UserError: their number or a shape is not that of a pixel policy, or a number is not finite.
    """
    arrays = [as_weights(str(index), array) for index, array in enumerate(arrays)]
    wanted = [kernel[::-1] for kernel in KERNELS]
    shapes = [np.shape(array) for array in arrays]
    dense = shapes[2:]
    chained = (
        len(dense) == 3
        and all(len(shape) == 2 for shape in dense)
        and [into for _, into in dense] == [FEATURES, *(out for out, _ in dense[:2])]
    )
    if shapes[:2] != wanted or not chained:
        raise UserError(
            f"Arrays of shapes {shapes} are no pixel policy: it has {wanted[0]}, {wanted[1]}, "
            f"then dense weights [out, in], the first of {FEATURES} inputs, the others of the last "
            "one's outputs."
        )
    kernels = tuple(np.asarray(array).transpose(3, 2, 1, 0) for array in arrays[:2])
    first, *rest = map(np.asarray, arrays[2:])
    return PixelPolicy(kernels, (_features_last(first), *rest))


def pixel_policy_to_release(policy: PixelPolicy) -> list[np.ndarray]:
    """Undo `pixel_policy_from_release`."""
    kernels = [np.asarray(kernel).transpose(3, 2, 1, 0) for kernel in policy.kernels]
    first, *rest = map(np.asarray, policy.weights)
    return [*kernels, _features_first(first), *rest]


def _features_last(x: np.ndarray) -> np.ndarray:
    """Return x with its last axis from (channel, width, height) to (height, width, channel)."""
    shape = x.shape
    return x.reshape(*shape[:-1], CHANNELS, SIDE, SIDE).swapaxes(-1, -3).reshape(shape)


def _features_first(x: np.ndarray) -> np.ndarray:
    """Return x with its last axis from (height, width, channel) to (channel, width, height)."""
    shape = x.shape
    return x.reshape(*shape[:-1], SIDE, SIDE, CHANNELS).swapaxes(-1, -3).reshape(shape)


def coevolved_from_release(
    vector: np.ndarray, sizes: Sequence[int], *, pixels: bool = False
) -> PixelPolicy:
    """Return the co-evolved parameters, which the release keeps as one row of numbers.

    Args:
        vector: a pixel policy's convolutions, then, where they evolved too, the initial weights of
            every layer; [n] or [n, 1].
        sizes: units of every layer, the inputs first.
        pixels: whether there are convolutions.

    Returns:
        The policy, its kernels or its weights () where there are none.

    Raises:
        UserError: there are more or fewer numbers, or one is not finite.
    """
    flat = as_weights("of what evolved along with the coefficients", vector).reshape(-1)
    convolutions = [kernel[::-1] for kernel in KERNELS] if pixels else []
    dense = layer_shapes(sizes)
    few, many = _count(convolutions), _count([*convolutions, *dense])
    if flat.size not in {many, few} - {0}:
        wanted = f"{few} or {many}" if few else f"{many}"
        raise UserError(
            f"There are {flat.size} numbers that evolved along with the coefficients, but "
            f"layers of {tuple(sizes)} units have {wanted}: check the sizes."
        )
    shapes = [*convolutions, *(dense if flat.size == many else [])]
    ends = np.cumsum([_count([shape]) for shape in shapes])[:-1]
    arrays = [part.reshape(s) for part, s in zip(np.split(flat, ends), shapes, strict=True)]
    kernels = tuple(array.transpose(3, 2, 1, 0) for array in arrays[: len(convolutions)])
    weights = arrays[len(convolutions) :]
    if pixels and weights:
        weights[0] = _features_last(weights[0])
    return PixelPolicy(kernels, tuple(weights))


def coevolved_to_release(policy: PixelPolicy) -> np.ndarray:
    """Undo `coevolved_from_release`: return [n]. A policy without kernels is one of states."""
    kernels = [np.asarray(kernel).transpose(3, 2, 1, 0) for kernel in policy.kernels]
    weights = list(map(np.asarray, policy.weights))
    if kernels and weights:
        weights[0] = _features_first(weights[0])
    return np.concatenate([array.reshape(-1) for array in [*kernels, *weights]])


def _count(shapes: Sequence[Sequence[int]]) -> int:
    return sum(math.prod(shape) for shape in shapes)
