"""Published hyper-parameters: the tables of two releases, and the choice of a row for a run.

`published_hyperparameters.json` holds the tables of SYNERgy's and of CLS-ER's release whole: by
release, stream, method, with GCIL the distribution of the classes, and buffer (entries; -1 for a
method without one), the values

- lr: learning rate of SGD, per step,
- batch_size: new images of a step,
- minibatch_size: images of a draw from the buffer,
- n_epochs: passes over every task,

and hyper-parameters of the method, by the names of its fields. `NOT_APPLIED` lists the published
values that change nothing, `NOT_IN_TABLE` values that the releases' code fixes instead.

A run takes the first of these rows that exists: its method's on its stream; its method's on the
streams most alike, nearest first; then those of a method that stands in for it, `joint` taking
SGD's as in the releases. Among the buffers of such a row the nearest in size counts; where there is
none of 1,000 entries, that of 5,120 stands for it. Where both releases have that row, the preferred
one's counts.
`provenance` names the row's origin in a line.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

TABLE = Path(__file__).with_name("published_hyperparameters.json")

Release = Literal["synergy", "clser"]
RELEASES: dict[Release, str] = {"synergy": "SYNERgy", "clser": "CLS-ER"}

NOT_APPLIED = {
    # The releases' step ignores it and weighs the distance by 1.
    "fdr": ("alpha",),
    # Rows of GCIL's longtail distribution are DER++'s, and ER has no such terms.
    "er": ("alpha", "beta"),
    # One row for seq-tinyimg has it, but the method uses the logits as they are.
    "der": ("softmax_temp",),
    # The loss is logistic, without a temperature.
    "icarl": ("softmax_temp",),
}
"""Published values that change nothing in the releases, by method."""

NOT_IN_TABLE: dict[str, dict[str, float]] = {"mer": {"item_num": 0}}
"""Values that the releases' code fixes without naming them: MER's SGD takes a whole batch at a
step.
"""

STANDS_IN = {"joint": "sgd"}
"""Method whose learning rate, batches and epochs a method without rows takes; by default ER."""

ALIKE = {
    "rot-mnist": ("perm-mnist", "seq-mnist"),
    "perm-mnist": ("rot-mnist", "seq-mnist"),
    "seq-mnist": ("rot-mnist", "perm-mnist"),
    "mnist-360": ("rot-mnist", "perm-mnist", "seq-mnist"),
    "seq-cifar10": ("seq-tinyimg",),
    "seq-tinyimg": ("seq-cifar10",),
    "gcil-cifar100": ("seq-cifar10",),
    "gcil-cifar100-longtail": ("gcil-cifar100", "seq-cifar10"),
}
"""The other streams of the tables that are like each of them, most alike first."""

LARGE_BUFFER, THOUSAND = 5120, 1000


class Row(NamedTuple):
    """A row of a release's table. buffer: entries; None for a method without one."""

    release: Release
    stream: str
    method: str
    buffer: int | None
    values: Mapping[str, Any]


class HyperParameters(NamedTuple):
    """A row by this library's names. settings: the method's own."""

    lr: float
    batch: int
    replay: int
    epochs: int
    settings: dict[str, float]


@functools.cache
def published_rows() -> tuple[Row, ...]:
    """Return all rows of both releases."""
    return tuple(_rows_of(json.loads(TABLE.read_text(encoding="utf-8"))))


def _rows_of(tables: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of tables as the file nests them."""
    for release in RELEASES:
        for stream, methods in tables[f"{release}_release"].items():
            for method, by_buffer in methods.items():
                parts = {"": by_buffer}
                if stream == "gcil-cifar100":
                    parts = {"": by_buffer["unif"], "-longtail": by_buffer["longtail"]}
                for suffix, buffers in parts.items():
                    for size, values in buffers.items():
                        buffer = None if int(size) == -1 else int(size)
                        yield Row(release, stream + suffix, method, buffer, values)


def alike_streams(stream: str, colour: bool, large: bool) -> tuple[str, ...]:
    """Return the streams of the tables that a stream is or resembles, most alike first.

    Args:
        stream: name, as of `make_stream`.
        colour: whether its images are.
        large: whether they are larger than 32x32, or there are more than 100 classes.
    """
    first = _likest_stream(stream, colour, large)
    return first, *ALIKE[first]


def _likest_stream(stream: str, colour: bool, large: bool) -> str:
    """Return the stream of the tables that a stream is or resembles most."""
    if stream.startswith("gcil"):
        return "gcil-cifar100-longtail" if stream.endswith("-longtail") else "gcil-cifar100"
    if colour:
        return "seq-tinyimg" if large else "seq-cifar10"
    if stream.endswith("-360"):
        return "mnist-360"
    return f"{stream.partition('-')[0]}-mnist"


def nearest_row(method: str, streams: Sequence[str], buffer: int, prefer: Release) -> Row:
    """Return the row whose values a run takes, as this file's docstring says.

    Args:
        method: name.
        streams: of the tables, most alike first (`alike_streams`).
        buffer: entries.
        prefer: release whose row is taken where both have it.
    """
    for name in (method, STANDS_IN.get(method, "er")):
        for stream in streams:
            rows = [row for row in published_rows() if (row.method, row.stream) == (name, stream)]
            if rows:
                sizes = {row.buffer for row in rows}
                return min(
                    rows,
                    key=lambda row: (_distance(row.buffer, buffer, sizes), row.release != prefer),
                )
    raise AssertionError(f"no row for {method} on {streams}, nor for what stands in for it")


def _distance(size: int | None, buffer: int, sizes: set[int | None]) -> int:
    """Return how many entries a row's buffer is away; sizes: of all rows that can be taken."""
    if size is None:
        return 0
    if size == LARGE_BUFFER and THOUSAND not in sizes:
        return min(abs(size - buffer), abs(THOUSAND - buffer))
    return abs(size - buffer)


def hyper_parameters(row: Row, method: str, fields: Sequence[str]) -> HyperParameters:
    """Return a row's values by this library's names.

    Images of a draw: 1 where the method draws none, and those of a batch for iCaRL's 0, whose
    release puts the buffer among the task's images instead of drawing. A row without a batch is
    MER's, whose batches are of one image; one without epochs is of a stream that passes once.

    Args:
        row: whose values.
        method: name of the method that takes them. Only from a row of its own it takes values named
            like its hyper-parameters.
        fields: names of its hyper-parameters.
    """
    values = row.values
    batch = int(values.get("batch_size", 1))
    settings = dict(NOT_IN_TABLE.get(method, {}))
    if row.method == method:
        unused = NOT_APPLIED.get(method, ())
        settings |= {name: values[name] for name in fields if name in values and name not in unused}
    return HyperParameters(
        lr=float(values["lr"]),
        batch=batch,
        replay=int(values.get("minibatch_size", 1)) or batch,
        epochs=int(values.get("n_epochs", 1)),
        settings=settings,
    )


def provenance(row: Row, method: str, stream: str, buffer: int, prefer: Release) -> str:
    """Return a line that names the row whose values a run takes, and whether it is the run's own.

    Args:
        row: whose values are taken.
        method: name of the run's method.
        stream: name of the run's stream, as the tables call it where they have it.
        buffer: entries.
        prefer: the release that was asked for.
    """
    line = f"values of {_described(row.method, row.stream, row.buffer)}"
    line += f" in the release of {RELEASES[row.release]}"
    if (row.method, row.stream, row.buffer or buffer) != (method, stream, buffer):
        size = None if row.buffer is None else buffer
        return f"{line}: nothing is published for {_described(method, stream, size)}"
    if row.release != prefer:
        return f"{line}: {RELEASES[prefer]}'s has none"
    return line


def _described(method: str, stream: str, buffer: int | None) -> str:
    """Return a cell's name."""
    return f"{method} on {stream}" + ("" if buffer is None else f", buffer {buffer}")
