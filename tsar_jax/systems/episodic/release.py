"""Conversion of parameters to and from the order and layout of the original PyTorch releases.

A release stores a flat list of arrays: convolutions [out, in, 3, 3], dense weights [out, in],
images and flattened features channel first. Here convolutions are [3, 3, in, out], dense weights
[in, out], and features flatten with the channel last.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tsar_jax.errors import UserError, check_known
from tsar_jax.interop.naming import as_weights
from tsar_jax.networks import (
    ANML,
    OML,
    TSAR,
    Network,
    params_like,
)
from tsar_jax.networks.layers import IMAGE_CHANNELS

Params = Any


class Layout(NamedTuple):
    """A pair of inverse maps between a release's array and ours.

    rank: number of axes of both arrays.
    from_release: maps the release's array to ours.
    to_release: maps our array to the release's.
    flat_axes: axes of the release's array that flatten (channel, 3, 3).
    """

    rank: int
    from_release: Callable[[Any], Any]
    to_release: Callable[[Any], Any]
    flat_axes: tuple[int, ...] = ()


def _channels_last(x: Any, axis: int) -> Any:
    """Reorder a flattened (channel, 3, 3) axis into (3, 3, channel)."""
    shape = (*x.shape[:axis], x.shape[axis] // 9, 9, *x.shape[axis + 1 :])
    return x.reshape(shape).swapaxes(axis, axis + 1).reshape(x.shape)


def _channels_first(x: Any, axis: int) -> Any:
    """Reorder a flattened (3, 3, channel) axis into (channel, 3, 3)."""
    shape = (*x.shape[:axis], 9, x.shape[axis] // 9, *x.shape[axis + 1 :])
    return x.reshape(shape).swapaxes(axis, axis + 1).reshape(x.shape)


VECTOR = Layout(1, lambda x: x, lambda x: x)
FLAT_VECTOR = Layout(1, lambda x: _channels_last(x, 0), lambda x: _channels_first(x, 0), (0,))
CONV = Layout(4, lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
DENSE = Layout(2, lambda x: x.T, lambda x: x.T)
DENSE_FROM_FLAT = Layout(
    2, lambda x: _channels_last(x.T, 0), lambda x: _channels_first(x, 0).T, (1,)
)
DENSE_FLAT_TO_FLAT = Layout(
    2,
    lambda x: _channels_last(_channels_last(x.T, 0), 1),
    lambda x: _channels_first(_channels_first(x, 1), 0).T,
    (0, 1),
)


def _regulation(taps: int, inputs: int | None = None) -> tuple[Layout, Layout]:
    """Return the layouts of the weights and bias of a head that regulates a kernel.

    The head's outputs are the kernel's weights, flattened as [out, in, taps] in the release and as
    [taps, in, out] here.

    Args:
        taps: spatial positions of the kernel.
        inputs: input channels of the kernel. None: as many as output channels.
    """

    def channels(count: int) -> tuple[int, int]:
        """Return the output and input channels of a kernel of `count` weights."""
        in_channels = inputs or math.isqrt(count // taps)
        return count // (in_channels * taps), in_channels

    def ours(x: Any) -> Any:
        out_channels, in_channels = channels(x.shape[-1])
        kernels = x.reshape(*x.shape[:-1], out_channels, in_channels, taps)
        return kernels.swapaxes(-1, -3).reshape(x.shape)

    def theirs(x: Any) -> Any:
        out_channels, in_channels = channels(x.shape[-1])
        kernels = x.reshape(*x.shape[:-1], taps, in_channels, out_channels)
        return kernels.swapaxes(-1, -3).reshape(x.shape)

    weights = Layout(
        2,
        lambda x: ours(_channels_last(x.T, 0)),
        lambda x: _channels_first(theirs(x), 0).T,
        (1,),
    )
    return weights, Layout(1, ours, theirs)


Entry = tuple[str, Layout]
"""Our name of a release's array, and its layout."""


def _trunk(prefix: str) -> list[Entry]:
    """Return the entries of three blocks of convolution and norm."""
    return [
        (f"{prefix}/block_{index}/{leaf}", layout)
        for index in range(3)
        for leaf, layout in (
            ("kernel", CONV),
            ("bias", VECTOR),
            ("scale", VECTOR),
            ("offset", VECTOR),
        )
    ]


def _dense(prefix: str, layout: Layout, bias: Layout = VECTOR) -> list[Entry]:
    """Return the entries of a dense layer\'s weights and bias."""
    return [(f"{prefix}/kernel", layout), (f"{prefix}/bias", bias)]


def _anml() -> list[Entry]:
    """Return ANML\'s entries."""
    return [
        *_trunk("neuromodulator/trunk"),
        *_dense("neuromodulator/gate", DENSE_FLAT_TO_FLAT, FLAT_VECTOR),
        *_trunk("trunk"),
        *_dense("head", DENSE_FROM_FLAT),
    ]


def _oml() -> list[Entry]:
    """Return OML\'s entries."""
    return [
        *(
            (f"representation/conv_{index}/{leaf}", layout)
            for index in range(6)
            for leaf, layout in (("kernel", CONV), ("bias", VECTOR))
        ),
        *_dense("hidden", DENSE_FROM_FLAT),
        *_dense("head", DENSE),
    ]


def _tsar(channels: int) -> list[Entry]:
    """Return TSAR's entries.

    Args:
        channels: channels of the classifier, which the layout of the output layer's regulation
            needs.
    """
    return [
        *_trunk("encoder"),
        *_dense("regulator/block_0", *_regulation(9, IMAGE_CHANNELS)),
        *_dense("regulator/block_1", *_regulation(9)),
        *_dense("regulator/block_2", *_regulation(9)),
        *_dense("regulator/head", *_regulation(1, channels)),
        *_trunk("trunk"),
        *_dense("head", DENSE),
    ]


NETWORKS: dict[str, Callable[..., Network]] = {"anml": ANML, "oml": OML, "tsar": TSAR}
KINDS = tuple(NETWORKS)


def release_names(kind: str) -> list[str]:
    """Return our names of a release's arrays, in the release's order.

    Raises:
        UserError: the kind is unknown.
    """
    return [name for name, _ in _entries(kind, 1)]


def from_release(kind: str, arrays: Sequence[np.ndarray]) -> Params:
    """Return a release's arrays, in its order and layout, as our parameters in float32.

    Args:
        kind: anml, oml or tsar.

    Raises:
        UserError: the number of arrays is wrong, or an array is not of finite numbers or cannot
            belong to such a network.
    """
    names = release_names(kind)
    arrays = [
        as_weights(f"{index} ({names[index]})" if index < len(names) else str(index), array)
        for index, array in enumerate(arrays)
    ]
    shape = np.shape(arrays[-2]) if len(arrays) > 1 else ()
    entries = _entries(kind, shape[1] if len(shape) == 2 else 1)
    if len(arrays) != len(entries):
        raise UserError(
            f"A release of kind {kind!r} has {len(entries)} arrays, not {len(arrays)}: "
            "pass all of them, in the release's order."
        )
    params: dict[str, Any] = {}
    for index, ((name, layout), array) in enumerate(zip(entries, arrays, strict=True)):
        *folders, leaf = name.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = _read(kind, index, name, layout, array)
    _check_network(kind, params)
    return params


def to_release(kind: str, params: Params) -> list[np.ndarray]:
    """Return our parameters as a release's arrays, in its order and layout.

    It is the inverse of `from_release`.

    Raises:
        UserError: params lacks an array of that kind of network.
    """
    leaves = [_leaf(kind, params, name) for name in release_names(kind)]
    layouts = [layout for _, layout in _entries(kind, leaves[-2].shape[0])]
    return [layout.to_release(leaf) for layout, leaf in zip(layouts, leaves, strict=True)]


def _leaf(kind: str, params: Params, name: str) -> Any:
    """Return the array under a name such as trunk/block_0/kernel."""
    for part in name.split("/"):
        if part not in params:
            raise UserError(f"These parameters have no {name}: they are not of kind {kind!r}.")
        params = params[part]
    return params


def _entries(kind: str, inputs: int) -> list[Entry]:
    """Return the entries of a release's arrays, in order.

    Args:
        inputs: inputs of the output layer, whose weights are always the last array but one.

    Raises:
        UserError: the kind is unknown.
    """
    check_known("kind of release", kind, KINDS)
    if kind == "anml":
        return _anml()
    if kind == "oml":
        return _oml()
    assert kind == "tsar"
    return _tsar(inputs)


def _read(kind: str, index: int, name: str, layout: Layout, array: np.ndarray) -> Any:
    """Return one of a release\'s arrays in our layout.

    Raises:
        UserError: its shape is none that the layout can have.
    """
    shape = np.shape(array)
    wrong = len(shape) != layout.rank or (layout.rank == 4 and shape[2:] != (3, 3))
    if not wrong and not any(shape[axis] % 9 for axis in layout.flat_axes):
        try:
            return layout.from_release(array)
        except ValueError:  # a regulator's head whose outputs are no kernel's number of weights
            pass
    want = {1: "[n]", 2: "[out, in]", 4: "[out, in, 3, 3]"}[layout.rank]
    if layout.flat_axes:
        want += ", flattened axes a multiple of 9"
    raise UserError(
        f"Array {index} of kind {kind!r} ({name}) has shape {list(shape)}, expected {want}: "
        "check the order of the arrays."
    )


def network_widths(kind: str, params: Params) -> dict[str, int]:
    """Return the network's widths, read from its arrays, by the names that networks give them."""
    widths = {"classes": params["head"]["bias"].size}
    if kind == "oml":
        return widths | {
            "channels": params["representation"]["conv_0"]["bias"].size,
            "hidden_features": params["hidden"]["bias"].size,
        }
    widths["channels"] = params["trunk"]["block_0"]["bias"].size
    if kind == "anml":
        gate = params["neuromodulator"]["trunk"]
        return widths | {"gate_channels": gate["block_0"]["bias"].size}
    return widths | {"regulator_channels": params["encoder"]["block_0"]["bias"].size}


def _check_network(kind: str, params: Params) -> None:
    """Raise UserError where a shape is not that of the network which the widths describe."""
    network = NETWORKS[kind](**network_widths(kind, params))
    expected = params_like(network)
    for index, (name, layout) in enumerate(_entries(kind, params["head"]["kernel"].shape[0])):
        ours, theirs = _leaf(kind, params, name), _leaf(kind, expected, name)
        if ours.shape != theirs.shape:
            want = jax.eval_shape(layout.to_release, theirs).shape
            raise UserError(
                f"Array {index} of kind {kind!r} ({name}) has shape "
                f"{list(np.shape(layout.to_release(ours)))}, expected {list(want)} in a network "
                "of these widths: check the order of the arrays."
            )
