"""Parameters to and from the original PyTorch releases' order and layout.

A release stores a flat list of arrays: convolutions [out, in, 3, 3], dense weights [out, in],
images and flattened features channel first. Here convolutions are [3, 3, in, out], dense weights
[in, out], and features flatten with the channel last.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tsar_jax.errors import UserError

Params = Any


class Layout(NamedTuple):
    """A pair of inverse maps between a release's array and ours."""

    from_release: Callable[[Any], Any]
    to_release: Callable[[Any], Any]


def _channels_last(x: Any, axis: int) -> Any:
    """Reorder a flattened (channel, 3, 3) axis into (3, 3, channel)."""
    shape = (*x.shape[:axis], x.shape[axis] // 9, 9, *x.shape[axis + 1 :])
    return x.reshape(shape).swapaxes(axis, axis + 1).reshape(x.shape)


def _channels_first(x: Any, axis: int) -> Any:
    """Reorder a flattened (3, 3, channel) axis into (channel, 3, 3)."""
    shape = (*x.shape[:axis], 9, x.shape[axis] // 9, *x.shape[axis + 1 :])
    return x.reshape(shape).swapaxes(axis, axis + 1).reshape(x.shape)


VECTOR = Layout(lambda x: x, lambda x: x)
FLAT_VECTOR = Layout(lambda x: _channels_last(x, 0), lambda x: _channels_first(x, 0))
CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
DENSE = Layout(lambda x: x.T, lambda x: x.T)
DENSE_FROM_FLAT = Layout(lambda x: _channels_last(x.T, 0), lambda x: _channels_first(x, 0).T)
DENSE_FLAT_TO_FLAT = Layout(
    lambda x: _channels_last(_channels_last(x.T, 0), 1),
    lambda x: _channels_first(_channels_first(x, 1), 0).T,
)

Entry = tuple[str, Layout]


def _trunk(prefix: str) -> list[Entry]:
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
    return [(f"{prefix}/kernel", layout), (f"{prefix}/bias", bias)]


RELEASES: dict[str, list[Entry]] = {
    "anml": [
        *_trunk("neuromodulator/trunk"),
        *_dense("neuromodulator/gate", DENSE_FLAT_TO_FLAT, FLAT_VECTOR),
        *_trunk("trunk"),
        *_dense("head", DENSE_FROM_FLAT),
    ],
    "oml": [
        *(
            (f"representation/conv_{index}/{leaf}", layout)
            for index in range(6)
            for leaf, layout in (("kernel", CONV), ("bias", VECTOR))
        ),
        *_dense("hidden", DENSE_FROM_FLAT),
        *_dense("head", DENSE),
    ],
}


def release_names(kind: str) -> list[str]:
    """Our names of a release's arrays, in the release's order. Raises UserError: unknown kind."""
    return [name for name, _ in _entries(kind)]


def from_release(kind: str, arrays: Sequence[np.ndarray]) -> Params:
    """A release's arrays, in its order and layout, as our parameters.

    Raises UserError where the count is wrong or an array cannot belong to such a network.
    """
    entries = _entries(kind)
    if len(arrays) != len(entries):
        raise UserError(
            f"A release of kind {kind!r} has {len(entries)} arrays, not {len(arrays)}: "
            "pass all of them, in the release's order."
        )
    params: dict = {}
    for index, ((name, layout), array) in enumerate(zip(entries, arrays, strict=True)):
        _check_rank(kind, index, name, layout, np.shape(array))
        *folders, leaf = name.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = layout.from_release(array)
    _check_network(kind, params)
    return params


def to_release(kind: str, params: Params) -> list[np.ndarray]:
    """Our parameters as a release's arrays, in its order and layout. Undoes `from_release`.

    Raises UserError where params lacks an array of that kind of network.
    """
    arrays = []
    for name, layout in _entries(kind):
        node = params
        for part in name.split("/"):
            if part not in node:
                raise UserError(f"These parameters have no {name}: they are not of kind {kind!r}.")
            node = node[part]
        arrays.append(layout.to_release(node))
    return arrays


def _entries(kind: str) -> list[Entry]:
    if kind not in RELEASES:
        raise UserError(f"Unknown kind of release {kind!r}: choose from {', '.join(RELEASES)}.")
    return RELEASES[kind]


def _check_rank(kind: str, index: int, name: str, layout: Layout, shape: tuple) -> None:
    rank = 4 if layout is CONV else 1 if layout in (VECTOR, FLAT_VECTOR) else 2
    flat_axes = {DENSE_FROM_FLAT: (1,), DENSE_FLAT_TO_FLAT: (0, 1), FLAT_VECTOR: (0,)}
    wrong = len(shape) != rank or (rank == 4 and shape[2:] != (3, 3))
    if wrong or any(shape[axis] % 9 for axis in flat_axes.get(layout, ())):
        want = {1: "[n]", 2: "[out, in]", 4: "[out, in, 3, 3]"}[rank]
        if layout in flat_axes:
            want += ", flattened axes a multiple of 9"
        raise UserError(
            f"Array {index} of kind {kind!r} ({name}) has shape {list(shape)}, expected {want}: "
            "check the order of the arrays."
        )


def _check_network(kind: str, params: Params) -> None:
    """Compare every shape with those of the network that the arrays' widths describe."""
    from tsar_jax.models import ANML, OML, init_params

    network: ANML | OML
    classes = params["head"]["bias"].size
    if kind == "anml":
        network = ANML(
            channels=params["trunk"]["block_0"]["bias"].size,
            gate_channels=params["neuromodulator"]["trunk"]["block_0"]["bias"].size,
            classes=classes,
        )
    else:
        network = OML(
            channels=params["representation"]["conv_0"]["bias"].size,
            hidden_features=params["hidden"]["bias"].size,
            classes=classes,
        )
    expected = jax.eval_shape(lambda key: init_params(network, key), jax.random.key(0))
    for index, (name, layout) in enumerate(RELEASES[kind]):
        ours, theirs = params, expected
        for part in name.split("/"):
            ours, theirs = ours[part], theirs[part]
        if ours.shape != theirs.shape:
            want = jax.eval_shape(layout.to_release, theirs).shape
            raise UserError(
                f"Array {index} of kind {kind!r} ({name}) has shape "
                f"{list(np.shape(layout.to_release(ours)))}, expected {list(want)} in a network "
                "of these widths: check the order of the arrays."
            )
