"""metrics.jsonl and metrics.csv, one row per compiled chunk and per evaluation; TensorBoard.

A row is {"step", "split": "train" or "eval", "wall_s", "steps_per_s", metric: value, ...}.
metrics.jsonl is the record; metrics.csv is the same rows as a table.
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tsar_jax.errors import UserError, pip
from tsar_jax.training.run import write_atomically

Row = dict[str, Any]

LEADING_COLUMNS = ("step", "split", "wall_s", "steps_per_s")


def read_rows(run_folder: str | os.PathLike[str]) -> list[Row]:
    """The rows of a run's metrics.jsonl; [] without one.

    A line that is no row ends the reading: what a killed process had not finished writing.
    """
    try:
        text = (Path(run_folder) / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    rows: list[Row] = []
    for line in text.splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not line.endswith("\n") or not isinstance(row, dict) or "step" not in row:
            break
        rows.append(row)
    return rows


def csv_columns(metric_names: Iterable[str]) -> list[str]:
    """The columns of metrics.csv for a run that reports `metric_names`."""
    return [*LEADING_COLUMNS, *sorted(set(metric_names))]


class MetricsWriter:
    """Appends rows to metrics.jsonl and metrics.csv, and to TensorBoard where asked to.

    Rows past `step` that an earlier process left are dropped, for the run continues from there.
    Raises UserError if `tensorboard` is asked for and tensorboardX is not installed.
    """

    def __init__(self, folder: Path, columns: Sequence[str], step: int, tensorboard: bool):
        self.rows = [row for row in read_rows(folder) if row["step"] <= step]
        self._columns = columns
        self._tensorboard = _tensorboard_writer(folder, step) if tensorboard else None
        write_atomically(folder / "metrics.jsonl", "".join(map(_json_line, self.rows)))
        header = _csv_line(columns)
        lines = [_csv_line(_cells(row, columns)) for row in self.rows]
        write_atomically(folder / "metrics.csv", "".join([header, *lines]))
        self._jsonl = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._csv = (folder / "metrics.csv").open("a", encoding="utf-8", newline="")

    def write(self, row: Row) -> None:
        """Appends one row to every file."""
        self.rows.append(row)
        self._jsonl.write(_json_line(row))
        self._jsonl.flush()
        self._csv.write(_csv_line(_cells(row, self._columns)))
        self._csv.flush()
        if self._tensorboard is not None:
            for name in row.keys() - set(LEADING_COLUMNS):
                self._tensorboard.add_scalar(f"{row['split']}/{name}", row[name], row["step"])

    def sync(self) -> None:
        """Returns once the rows are on the disk, to be called before their checkpoint is saved."""
        for file in (self._jsonl, self._csv):
            os.fsync(file.fileno())

    def close(self) -> None:
        self._jsonl.close()
        self._csv.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def check_tensorboard() -> None:
    """Raises UserError if tensorboardX cannot be imported."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise UserError(
            "TensorBoard logging needs tensorboardX: "
            f"{pip()} install 'tsar_jax[tensorboard]', or leave it off with --no-tensorboard."
        ) from error


def _tensorboard_writer(folder: Path, step: int) -> Any:
    check_tensorboard()
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


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
