"""Rescue of a training whose folder is deleted or moved, or whose disk is full."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tsar_jax.errors import DISK_ERRORS
from tsar_jax.training import run as run_folder
from tsar_jax.training.arrays import StepArrays, write_arrays
from tsar_jax.training.checkpoints import Arrays, save_once
from tsar_jax.training.config import config_to_json
from tsar_jax.training.metrics import MetricsWriter, Row
from tsar_jax.training.run import Run


class FolderWatch:
    """The files and folders that a training writes to, watched for their loss.

    An open file can be written to after it was deleted, and Orbax makes folders anew: neither would
    report that what is written is lost.

    pretrained: the text of a run's pretrained.json, for when it is gone; None: there was none.
    """

    def __init__(self, run: Run):
        paths = (run.path, run.checkpoints, run.path / "metrics.jsonl")
        self._known = {path: _identity(path) for path in paths}
        try:
            path = run.path / run_folder.PRETRAINED
            self.pretrained: str | None = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            self.pretrained = None

    def gone(self) -> bool:
        """Return whether one of them is missing or was replaced by another."""
        return any(_identity(path) != identity for path, identity in self._known.items())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def reason(error: Exception) -> str:
    """Return why something could not be written, in the system's words.

    An error of Orbax has these somewhere in a longer text.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    known = (os.strerror(number) for number in DISK_ERRORS)
    return next((words for words in known if words in text), text.partition("\n")[0][:200])


def save_elsewhere(
    run: Run,
    steps: int,
    columns: Sequence[str],
    rows: Sequence[Row],
    arrays: Arrays,
    step: int,
    step_arrays: StepArrays,
    pretrained: str | None,
) -> Run:
    """Save a run whose folder is gone in a new one, and return it as it is to be continued.

    The new folder is beside the former one, or, where none can be made there, among the system's
    temporary files.

    Args:
        run: the run whose folder is gone.
        steps: steps of the whole run.
        columns: columns of metrics.csv.
        rows: rows of the metrics so far.
        arrays: leaves of the present state, by path.
        step: number of the present step.
        step_arrays: what the steps returned beside scalars.
        pretrained: text of its pretrained.json, without which rows that it never had would be
            taken for lost; None: it has none.

    Raises:
        OSError, SaveFailed: the new folder cannot be written either; it is removed.
    """
    prefix = f"{run.path.name}-rescued-"
    try:
        place = tempfile.mkdtemp(prefix=prefix, dir=run.path.absolute().parent)
    except OSError:
        place = tempfile.mkdtemp(prefix=prefix)
    rescued = Run(Path(place), run.config, run.experiment, run.preset)
    try:
        run_folder.create_run(rescued, steps)
        metrics = MetricsWriter(rescued.path, columns, step, tensorboard=False)
        for row in rows:
            metrics.write(row)
        metrics.sync()
        metrics.close()
        write_arrays(rescued.path, step_arrays)
        if pretrained is not None:
            run_folder.write_atomically(rescued.path / run_folder.PRETRAINED, pretrained)
        save_once(rescued.checkpoints, step, arrays, config_to_json(run.config))
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return rescued
