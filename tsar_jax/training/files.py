"""The files of a training in progress, which one process writes."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tsar_jax.errors import UserError
from tsar_jax.training.arrays import ArrayWriter, StepArrays
from tsar_jax.training.checkpoints import Arrays, CheckpointWriter, SaveFailed
from tsar_jax.training.config import config_to_json
from tsar_jax.training.metrics import MetricsWriter, Row
from tsar_jax.training.progress import Progress
from tsar_jax.training.rescue import FolderWatch, reason, save_elsewhere
from tsar_jax.training.run import Run, checkpoint_steps

Copy = Callable[[], tuple[Arrays, int]]
"""() -> the leaves of the present state by path, on the host, and its step."""


class NoFiles:
    """The files of a process that writes none: of all but the first."""

    rows: Sequence[Row] = ()
    arrays = StepArrays(np.zeros(0, int), {})
    wall_s = 0.0
    """Seconds that the run had taken before this process."""

    def message(self, text: str) -> None:
        """Show a message."""

    def add_arrays(self, step: int, count: int, arrays: dict[str, np.ndarray]) -> None:
        """Keep the arrays of `count` steps from `step` on, to be written before a checkpoint."""

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Write rows of metrics."""

    def show(self, step: int, steps_per_s: float, metrics: Mapping[str, float]) -> None:
        """Show the progress."""

    def save(self, step: int, state: Arrays) -> None:
        """Begin to save a state, after all that must be on the disk before it."""

    def wait(self) -> None:
        """Return when the last save has ended. Raises SaveFailed."""

    def last_saved(self) -> str:
        """Return which checkpoint is the newest, for a sentence."""
        return "that of the first process"

    def writing(self, copy: Copy) -> contextlib.AbstractContextManager[None]:
        """Return a context in which files are written.

        copy: called where the folder is gone.
        """
        del copy
        return contextlib.nullcontext()


class RunFiles(NoFiles):
    """The files of a run's folder, and the progress on the terminal."""

    def __init__(
        self,
        run: Run,
        steps: int,
        columns: list[str],
        metrics: MetricsWriter,
        arrays: ArrayWriter,
        checkpoints: CheckpointWriter,
        progress: Progress,
    ):
        self._run, self._steps, self._columns = run, steps, columns
        self._metrics, self._arrays, self._checkpoints = metrics, arrays, checkpoints
        self._progress = progress
        self._watch = FolderWatch(run)

    @property
    def rows(self) -> Sequence[Row]:  # type: ignore[override]
        return self._metrics.rows

    @property
    def arrays(self) -> StepArrays:  # type: ignore[override]
        return self._arrays.arrays

    @property
    def wall_s(self) -> float:  # type: ignore[override]
        return self._metrics.wall_s

    def message(self, text: str) -> None:
        self._progress.message(text)

    def add_arrays(self, step: int, count: int, arrays: dict[str, np.ndarray]) -> None:
        self._arrays.add(step, count, arrays)

    def write_rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._metrics.write(row)

    def show(self, step: int, steps_per_s: float, metrics: Mapping[str, float]) -> None:
        self._progress.update(step, steps_per_s, metrics)

    def save(self, step: int, state: Arrays) -> None:
        self._metrics.sync()
        if self._watch.gone():  # else Orbax would make it anew
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._run.path))
        self._arrays.write()
        self._checkpoints.save(step, state, config_to_json(self._run.config))

    def wait(self) -> None:
        self._checkpoints.wait()

    def last_saved(self) -> str:
        steps = checkpoint_steps(self._run.checkpoints)
        return f"that of step {steps[-1]} in {self._run.checkpoints}" if steps else "none"

    @contextlib.contextmanager
    def writing(self, copy: Copy) -> Iterator[None]:
        """Raise UserError where the block fails to write to the run's folder.

        Where the folder is gone, the present state is saved in another one first.
        """
        failure: Exception | None = None
        try:
            yield
        except (OSError, SaveFailed) as error:
            failure = error
        if self._watch.gone():
            raise self._rescued(copy) from failure
        if failure is not None:
            steps = checkpoint_steps(self._run.checkpoints)
            newest = f"from step {steps[-1]}" if steps else "from its beginning"
            raise UserError(
                f"The run {self._run.path} cannot be written ({reason(failure)}): make room for "
                f"it, then continue {newest} with: {self._run.resume_command()}"
            ) from failure

    def _rescued(self, copy: Copy) -> UserError:
        """Return the error where the folder is gone, with the state saved in another."""
        loss = f"The run folder {self._run.path} was deleted or moved while its training went on"
        step: int | None = None
        try:
            state, step = copy()
            rescued = save_elsewhere(
                *(self._run, self._steps, self._columns, self.rows, state, step),
                *(self.arrays, self._watch.pretrained),
            )
        except (OSError, SaveFailed, UserError) as error:
            which = "the state" if step is None else f"the state of step {step}"
            return UserError(
                f"{loss}, and {which} could not be saved elsewhere ({reason(error)}): train anew."
            )
        return UserError(
            f"{loss}: the state of step {step} is saved in {rescued.path}; continue with: "
            f"{rescued.resume_command()}"
        )
