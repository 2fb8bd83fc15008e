"""metrics.jsonl and metrics.csv, one row per compiled chunk and per evaluation; TensorBoard.

A row is {"step", "split": "train" or "eval", "wall_s", "steps_per_s", metric: value, ...}.
metrics.jsonl is the record; metrics.csv is the same rows as a table.
"""

import contextlib
import csv
import io
import json
import math
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tsar_jax.atomic import no_link
from tsar_jax.errors import UserError
from tsar_jax.training.run import write_atomically
from tsar_jax.training.tensorboard import EventWriter
from tsar_jax.untrusted.files import open_regular, parse_json

Row = dict[str, Any]

LEADING_COLUMNS = ("step", "split", "wall_s", "steps_per_s")


MAX_FILE = 100_000_000
"""Size of the largest metrics.jsonl that is read, in bytes, so that none can fill the memory."""
TAIL = 1 << 18
"""Bytes read at the end of metrics.jsonl for its last rows, some hundreds of them."""
MAX_DAMAGED = 5000
"""Number of lines of metrics.jsonl that are left out because they are no rows; a file with more
holds no metrics.
"""
SPLITS = ("train", "eval")


def read_rows(run_folder: str | os.PathLike[str]) -> list[Row]:
    """Return the rows of a run's metrics.jsonl, in the order of their steps; [] without the file.

    Lines that are no rows, and rows that repeat another's step and split, are left out with a
    warning, but for a last line that a killed process had not finished writing.

    Raises:
        UserError: the path is no regular file, it is too large, or more than `MAX_DAMAGED` of its
            lines are no rows.
    """
    path = Path(run_folder) / "metrics.jsonl"
    if not os.path.lexists(path):
        return []
    with open_regular(path, through_links=True) as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise UserError(
            f"{path} is of more than {MAX_FILE // 10**6} MB, as no run's metrics are: move it away "
            "to go on without its rows."
        )
    rows: dict[tuple[int, int], Row] = {}
    blank, damaged, doubled = data.count(b"\n"), 0, 0
    for line in _lines(data):
        blank -= 1
        row = parse_row(line)
        if row is None:
            damaged += 1
            if damaged > MAX_DAMAGED:
                break
            continue
        position = row["step"], SPLITS.index(row["split"])
        doubled += position in rows
        rows.setdefault(position, row)
    damaged += blank
    if damaged > MAX_DAMAGED:
        raise UserError(
            f"{path} has more than {MAX_DAMAGED} lines that are no rows of metrics: move it away "
            "to go on without its rows."
        )
    for count, fault in ((damaged, "that are no rows"), (doubled, "that repeat another's step")):
        if count:
            warnings.warn(f"{path} has {count} lines {fault}: they are left out.", stacklevel=2)
    return [rows[position] for position in sorted(rows)]


def read_last_rows(run_folder: str | os.PathLike[str]) -> list[Row]:
    """Return the rows at the end of a run's metrics.jsonl, as many as `TAIL` bytes hold.

    Raises:
        UserError: the path is no regular file.
    """
    path = Path(run_folder) / "metrics.jsonl"
    if not os.path.lexists(path):
        return []
    with open_regular(path, through_links=True) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - TAIL, 0))
        data = file.read(TAIL)
    return [row for row in map(parse_row, _lines(data)) if row is not None]


def _lines(data: bytes) -> Iterator[str]:
    """Yield the complete lines that are not blank; millions of blank ones cost nothing."""
    # The unfinished line is cut off first, for the pattern would try it from each character.
    for line in re.finditer(rb"[^\n]+\n", data[: data.rfind(b"\n") + 1]):
        yield line[0].decode("utf-8", errors="replace")


def parse_row(line: str) -> Row | None:
    """Return a line of metrics.jsonl as a row, or None if it is none."""
    if not line.startswith("{"):
        return None
    try:
        row = parse_json(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or row.get("split") not in SPLITS:
        return None
    # A bool is an int to Python, and a string or a list compares with no step.
    if type(row.get("step")) is not int or not 0 <= row["step"] < 2**31:
        return None
    values = (value for name, value in row.items() if name != "split")
    plain = all(value is None or type(value) in (int, float) for value in values)
    return row if plain else None


def csv_columns(metric_names: Iterable[str]) -> list[str]:
    """Return the columns of metrics.csv for a run that reports `metric_names`."""
    return [*LEADING_COLUMNS, *sorted(set(metric_names))]


class MetricsWriter:
    """A writer that appends rows to metrics.jsonl and metrics.csv, and to TensorBoard if asked to.

    Rows past `step` that an earlier process left are dropped, for the run continues from there.

    Args:
        folder: the run's folder.
        columns: columns of metrics.csv.
        step: steps done when the run begins or is resumed.
        tensorboard: whether TensorBoard files are written as well.
        expected: step and split of the rows up to `step`; lost ones give a warning.

    Raises:
        UserError: `tensorboard` is asked for and tensorboardX is not installed.
    """

    def __init__(
        self,
        folder: Path,
        columns: Sequence[str],
        step: int,
        tensorboard: bool,
        expected: Sequence[tuple[int, str]] = (),
    ):
        self.rows = [row for row in read_rows(folder) if row["step"] <= step]
        _warn_of_lost(folder, self.rows, expected)
        self._columns = columns
        self._tensorboard = EventWriter(folder / "tensorboard", step) if tensorboard else None
        write_atomically(folder / "metrics.jsonl", "".join(map(_json_line, self.rows)))
        header = _csv_line(columns)
        lines = [_csv_line(_cells(row, columns)) for row in self.rows]
        write_atomically(folder / "metrics.csv", "".join([header, *lines]))
        self._jsonl = _append(folder / "metrics.jsonl")
        self._csv = _append(folder / "metrics.csv")

    @property
    def wall_s(self) -> float:
        """Return the seconds of training up to the last row."""
        return float(self.rows[-1].get("wall_s") or 0) if self.rows else 0.0

    def write(self, row: Row) -> None:
        """Append one row to every file."""
        self.rows.append(row)
        self._jsonl.write(_json_line(row))
        self._jsonl.flush()
        self._csv.write(_csv_line(_cells(row, self._columns)))
        self._csv.flush()
        if self._tensorboard is not None:
            scalars = {
                f"{row['split']}/{name}": value
                for name, value in row.items()
                if name not in LEADING_COLUMNS
            }
            self._tensorboard.write(row["step"], time.time(), scalars)

    def sync(self) -> None:
        """Wait until the rows are on the disk; called before their checkpoint is saved."""
        for file in (self._jsonl, self._csv):
            os.fsync(file.fileno())

    def close(self) -> None:
        for file in (self._jsonl, self._csv, self._tensorboard):
            # A write that could not be flushed has raised already.
            with contextlib.suppress(OSError):
                if file is not None:
                    file.close()


def _warn_of_lost(folder: Path, rows: Sequence[Row], expected: Sequence[tuple[int, str]]) -> None:
    written = {(row["step"], row["split"]) for row in rows}
    lost = [step_and_split for step_and_split in expected if step_and_split not in written]
    if lost:
        step, split = lost[0]
        warnings.warn(
            f"{folder / 'metrics.jsonl'} has lost {len(lost)} of {len(expected)} rows, the first "
            f"that of {split} at step {step}: training goes on, but its curves have a gap.",
            stacklevel=3,
        )


def _append(path: Path) -> TextIO:
    return open(path, "a", encoding="utf-8", newline="", opener=no_link)


def _json_line(row: Row) -> str:
    return json.dumps({name: _finite_or_none(value) for name, value in row.items()}) + "\n"


def _finite_or_none(value: Any) -> Any:
    # JSON has neither NaN nor infinity.
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
    return [_finite_or_none(row.get(column)) for column in columns]


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
