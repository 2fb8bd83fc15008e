"""The training loop: chunks of steps in one compiled program, everything else between them."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.errors import UserError
from tsar_jax.training import run as run_folder
from tsar_jax.training.checkpoints import (
    CheckpointWriter,
    check_config,
    check_space,
    from_host,
    read_newest,
    state_bytes,
    to_host,
)
from tsar_jax.training.config import config_to_json
from tsar_jax.training.errors import TrainingDiverged, TrainingInterrupted
from tsar_jax.training.interruption import caught_signals
from tsar_jax.training.metrics import (
    MetricsWriter,
    Row,
    check_tensorboard,
    read_rows,
)
from tsar_jax.training.programs import Programs, make_programs, strong_types
from tsar_jax.training.progress import Progress, make_progress
from tsar_jax.training.run import Run, checkpoint_steps
from tsar_jax.training.system import HostSystem, SeedsSystem, State, System, objective_of


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long to train and what to do on the way. Raises UserError for impossible values."""

    steps: int = 1000
    """Steps of the whole run."""
    chunk: int = 50
    """Most steps in one compiled call; train metrics are means over such a chunk."""
    eval_every: int = 500
    """Steps between evaluations (0: only at the end)."""
    checkpoint_every: int = 500
    """Steps between checkpoints (0: only at the beginning and the end)."""
    keep: int = 3
    """Checkpoints kept, the newest."""
    seed: int = 0
    """Of all randomness: 0 to 2**32 - 1."""
    tensorboard: bool = False
    """Also write TensorBoard files; needs the extra "tensorboard"."""

    def __post_init__(self) -> None:
        least = {"steps": 0, "chunk": 1, "eval_every": 0, "checkpoint_every": 0, "keep": 1}
        for name, minimum in {**least, "seed": 0}.items():
            value = getattr(self, name)
            if value < minimum:
                raise UserError(f"{name} must be at least {minimum}, but is {value}.")
        for name in ("steps", "chunk"):
            if getattr(self, name) >= 2**31:
                raise UserError(f"{name} must be below 2**31, but is {getattr(self, name)}.")
        if self.seed >= 2**32:
            raise UserError(f"seed must be below 2**32, but is {self.seed}.")


class Trained(NamedTuple):
    """state: after the last step; step: its number; metrics: the run's rows, as in the files."""

    state: State
    step: int
    metrics: list[Row]


class Keys(NamedTuple):
    """Roots of a run's randomness; step i uses fold_in(step, i) and nothing else."""

    init: jax.Array
    step: jax.Array
    evaluate: jax.Array


def make_keys(seed: int) -> Keys:
    """Three independent keys."""
    return Keys(*jax.random.split(jax.random.key(seed), 3))


def next_boundary(step: int, loop: LoopConfig) -> int:
    """Where the chunk that begins after `step` steps ends.

    Boundaries are multiples of chunk, eval_every and checkpoint_every, counted from the run's
    beginning, and its end. They do not depend on where a process began, so a resumed run
    averages its metrics over the same steps as an uninterrupted one.
    """
    intervals = [every for every in (loop.chunk, loop.eval_every, loop.checkpoint_every) if every]
    return min(loop.steps, *((step // every + 1) * every for every in intervals))


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether what is done `every` steps (0: only at the end) is done after `step` of `steps`."""
    return step == steps or (every > 0 and step % every == 0)


def train(
    system: System | SeedsSystem | HostSystem,
    data: Any,
    loop: LoopConfig,
    run: Run,
    *,
    progress: Progress | None = None,
    first_state: Callable[[], State] | None = None,
) -> Trained:
    """Trains for `loop.steps` steps and writes the run's folder; or, if `run.resume`, continues.

    data: a pytree of arrays, moved to the device once and given to every call. first_state: makes
    the state to begin with in place of the system's, of the same shapes and dtypes; not called
    where there is a checkpoint to continue from. A resumed run ends bit for bit where an
    uninterrupted one ends. Raises UserError for a run that cannot begin or continue;
    TrainingDiverged, with the last good checkpoint kept; and TrainingInterrupted after Ctrl-C or
    SIGTERM, with the present state saved.
    """
    if loop.tensorboard:
        check_tensorboard()
    keys = make_keys(loop.seed)
    size = state_bytes(jax.eval_shape(system.init, keys.init))
    space = check_space(run.checkpoints, size, loop.keep)
    if run.resume:
        run_folder.check_writable(run.path)
    else:
        run_folder.start(run, loop.steps)
    with run_folder.locked(run.path), contextlib.ExitStack() as stack:
        data = jax.device_put(data)
        programs = make_programs(system, data, keys.init, loop.chunk)
        state, step = _begin(programs, keys, run, first_state)
        metrics = MetricsWriter(run.path, programs.columns, step, loop.tensorboard)
        stack.callback(metrics.close)
        progress = progress or make_progress(loop.steps)
        stack.callback(progress.close)
        progress.message(space)
        checkpoints = CheckpointWriter(run.checkpoints, loop.keep)
        stack.callback(checkpoints.close)
        stopped = stack.enter_context(caught_signals())
        trainer = _Trainer(programs, data, loop, run, keys, metrics, checkpoints, progress)
        return trainer.train(state, step, stopped)


def _begin(
    programs: Programs, keys: Keys, run: Run, first_state: Callable[[], State] | None
) -> tuple[State, int]:
    """The state and step to begin with: the newest intact checkpoint's, or the initial ones."""

    def begin() -> State:
        if first_state is None:
            return programs.init(keys.init)
        return jax.device_put(strong_types(first_state()), programs.places)

    if not run.resume:
        return begin(), 0
    found = read_newest(run.checkpoints, set_aside=run.path / "damaged_checkpoints")
    if found is None:
        if any(row["step"] > 0 for row in read_rows(run.path)):
            raise UserError(
                f"The checkpoints of {run.path} are gone, though it has metrics: start a new run."
            )
        run.checkpoints.mkdir(exist_ok=True)
        run.figures.mkdir(exist_ok=True)
        return begin(), 0
    arrays, record = found
    source = f"checkpoint of step {record['step']} in {run.path}"
    check_config(record, run.config, source)
    like = jax.eval_shape(programs.init, keys.init)
    state = from_host(arrays, like, source)
    return jax.device_put(state, programs.places), record["step"]


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """The parts of one run, all made; and the loop over its chunks."""

    programs: Programs
    data: Any
    loop: LoopConfig
    run: Run
    keys: Keys
    metrics: MetricsWriter
    checkpoints: CheckpointWriter
    progress: Progress

    def train(self, state: State, step: int, stopped: Callable[[], int | None]) -> Trained:
        """Chunk after chunk from `step` to the end, unless a signal comes or the loss diverges."""
        loop = self.loop
        if not checkpoint_steps(self.run.checkpoints):
            self._save(state, step)
            # Waited for, because a run with metrics but no checkpoint cannot be resumed.
            self.checkpoints.wait()
        run_chunk = None
        if step < loop.steps:
            run_chunk = self.programs.compile_chunk(state, self.data, self.keys.step)
        began = time.perf_counter() - (self.metrics.rows[-1]["wall_s"] if self.metrics.rows else 0)
        while run_chunk is not None and step < loop.steps:
            count = next_boundary(step, loop) - step
            chunk_began = time.perf_counter()
            state, buffers = run_chunk(
                state, self.data, self.keys.step, np.int32(step), np.int32(count)
            )
            means = self._means(jax.device_get(buffers), step, count)
            step += count
            now = time.perf_counter()
            rate = count / (now - chunk_began)
            row = {"step": step, "split": "train", "wall_s": now - began, "steps_per_s": rate}
            self.metrics.write(row | means)
            if is_due(step, loop.eval_every, loop.steps):
                values = self._evaluate(state, step)
                wall = time.perf_counter() - began
                self.metrics.write({"step": step, "split": "eval", "wall_s": wall} | values)
            signum = stopped()
            if signum is not None or is_due(step, loop.checkpoint_every, loop.steps):
                self._save(state, step)
            self.progress.update(step, rate, means)
            if signum is not None and step < loop.steps:
                raise self._interrupted(step, signum)
        self.checkpoints.wait()
        return Trained(state, step, self.metrics.rows)

    def _evaluate(self, state: State, step: int) -> dict[str, float]:
        key = jax.random.fold_in(self.keys.evaluate, step)
        values = jax.device_get(self.programs.evaluate(state, self.data, key))
        return {name: float(value) for name, value in values.items()}

    def _means(self, buffers: dict[str, np.ndarray], step: int, count: int) -> dict[str, float]:
        """The mean of every metric over a chunk; raises TrainingDiverged."""
        objective = objective_of(buffers)
        finite = np.isfinite(buffers[objective][:count])
        if not finite.all():
            first = int(np.argmin(finite))
            raise self._diverged(
                step + first + 1, f"The {objective} is {buffers[objective][first]}"
            )
        return {
            name: float(np.mean(buffer[:count], dtype=np.float64))
            for name, buffer in buffers.items()
        }

    def _save(self, state: State, step: int) -> None:
        """Begins to save a state, its metrics first; raises TrainingDiverged if not finite."""
        # Before the copy, so that there is never more than one copy of a large state.
        self.checkpoints.wait()
        arrays = to_host(state)
        for name, array in arrays.items():
            if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
                raise self._diverged(step, f"The state's {name!r} is not finite")
        self.metrics.sync()
        self.checkpoints.save(step, arrays, config_to_json(self.run.config))

    def _diverged(self, step: int, what: str) -> TrainingDiverged:
        self.checkpoints.wait()
        kept = checkpoint_steps(self.run.checkpoints)
        where = f"that of step {kept[-1]} in {self.run.checkpoints}" if kept else "none"
        return TrainingDiverged(
            f"{what} at step {step}: lower the learning rate in a new run "
            f"(the last good checkpoint is {where}).",
            step,
        )

    def _interrupted(self, step: int, signum: int) -> TrainingInterrupted:
        self.checkpoints.wait()
        return TrainingInterrupted(
            f"stopped at step {step} of {self.loop.steps}, saved; "
            f"continue with: {self.run.resume_command()}",
            signum,
        )
