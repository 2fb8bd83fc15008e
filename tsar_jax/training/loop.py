"""The training loop: chunks of steps in one compiled program, everything else between them."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax import processes
from tsar_jax.errors import UserError, check_known, check_positive, check_seed, checked_seed
from tsar_jax.precision import FULL, PRECISIONS
from tsar_jax.provenance import version_text
from tsar_jax.training import run as run_folder
from tsar_jax.training.arrays import ArrayWriter, StepArrays
from tsar_jax.training.checkpoints import (
    Arrays,
    CheckpointWriter,
    SaveFailed,
    check_config,
    check_space,
    from_host,
    read_newest,
    state_bytes,
    to_host,
)
from tsar_jax.training.config import FORMERLY_ZERO, config_to_json, earlier
from tsar_jax.training.errors import TrainingDiverged, TrainingInterrupted
from tsar_jax.training.files import NoFiles, RunFiles
from tsar_jax.training.interruption import caught_signals
from tsar_jax.training.metrics import (
    MetricsWriter,
    Row,
    read_rows,
)
from tsar_jax.training.programs import Programs, make_init, make_programs, strong_types
from tsar_jax.training.progress import Progress, make_progress
from tsar_jax.training.run import Run
from tsar_jax.training.seeds import LOST_SEEDS, SeedsState, lost_seeds
from tsar_jax.training.system import State, System, objective_of
from tsar_jax.training.tensorboard import check_tensorboard


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Settings of the training loop. Raises UserError for impossible values."""

    steps: int = 1000
    """Steps of the whole run."""
    chunk: int = 50
    """Largest number of steps in one compiled call; train metrics are means over such a chunk."""
    eval_every: int | None = dataclasses.field(default=500, metadata=FORMERLY_ZERO)
    """Steps between evaluations, at least 1; None: only at the end."""
    checkpoint_every: int | None = dataclasses.field(default=500, metadata=FORMERLY_ZERO)
    """Steps between checkpoints, at least 1; None: only at the beginning and the end."""
    keep: int = 3
    """Number of checkpoints kept, the newest."""
    seed: int = 0
    """Seed of the run, in [0, 2**32)."""
    seeds: int = dataclasses.field(default=1, metadata=earlier(1))
    """Seeds trained side by side, from `seed` on, each as if it were alone; they are spread over
    devices, or over the cores of a CPU that is split into devices."""
    modules: tuple[str, ...] = dataclasses.field(default=(), metadata=earlier(()))
    """Python modules to import first, which register networks, terms of rules, methods,
    environments or data sets of your own."""
    precision: str = dataclasses.field(default=FULL, metadata=earlier(FULL))
    """Precision of products of float32 arrays on accelerators: float32, or tensorfloat32, faster on
    their matrix units, with factors of 10 bits of mantissa or more. CPUs have float32 alone."""
    tensorboard: bool = False
    """Whether TensorBoard files are written as well; needs the extra "tensorboard"."""

    def __post_init__(self) -> None:
        check_positive(self, "chunk", "eval_every", "checkpoint_every", "keep", "seeds")
        if (self.steps or 0) < 0:
            raise UserError(f"steps must be at least 0, but is {self.steps}.")
        for name in ("steps", "chunk"):
            if (getattr(self, name) or 0) >= 2**31:
                raise UserError(f"{name} must be below 2**31, but is {getattr(self, name)}.")
        check_known("precision", self.precision, PRECISIONS)
        check_seed(self, count=self.seeds)


class Trained(NamedTuple):
    """The result of a training.

    state: the state after the last step, a `SeedsState` for several seeds. step: number of that
        step. metrics: the rows of metrics.jsonl. arrays: what the steps returned beside scalars.
    """

    state: State
    step: int
    metrics: list[Row]
    arrays: StepArrays


class Keys(NamedTuple):
    """Roots of a run's randomness; step i uses fold_in(step, i) and nothing else.

    With several seeds each key has a leading axis; a seed's keys are those of a run of that seed
    alone.
    """

    init: jax.Array
    step: jax.Array
    evaluate: jax.Array


def make_keys(seed: int, seeds: int = 1) -> Keys:
    """Return the run's three independent keys, with several seeds for each from `seed` on.

    Raises:
        UserError: a seed is not in [0, 2**32).
    """
    first = checked_seed("seed", seed)
    if seeds == 1:
        return _keys(np.uint32(first))
    last = checked_seed("seed", seed + seeds - 1)
    return jax.vmap(_keys)(np.arange(first, last + 1).astype(np.uint32))


@jax.jit
def _keys(seed: jax.Array) -> Keys:
    # Compiled as one program: eagerly it would be four, each looked up in the cache at every start.
    return Keys(*jax.random.split(jax.random.key(seed), 3))


def next_boundary(step: int, loop: LoopConfig) -> int:
    """Return the step at which the chunk that begins after `step` steps ends.

    Boundaries are multiples of chunk, eval_every and checkpoint_every, counted from the run's
    beginning, and its end. They do not depend on where a process began, so a resumed run
    averages its metrics over the same steps as an uninterrupted one.
    """
    intervals = [every for every in (loop.chunk, loop.eval_every, loop.checkpoint_every) if every]
    return min(loop.steps, *((step // every + 1) * every for every in intervals))


def due_rows(step: int, loop: LoopConfig) -> list[tuple[int, str]]:
    """Return step and split of the rows of metrics that the first `step` steps write."""
    due, end = [], 0
    while end < min(step, loop.steps):
        end = next_boundary(end, loop)
        due.append((end, "train"))
        if is_due(end, loop.eval_every, loop.steps):
            due.append((end, "eval"))
    return due


def is_due(step: int, every: int | None, steps: int) -> bool:
    """Return whether an action is due after `step` of `steps` steps.

    every: steps between two of them; None: only at the end.
    """
    return step == steps or (every is not None and step % every == 0)


def train(
    system: System,
    data: Any,
    loop: LoopConfig,
    run: Run,
    *,
    progress: Progress | None = None,
    first_state: Callable[[jax.Array], State] | None = None,
) -> Trained:
    """Train for `loop.steps` steps and write the run's folder; or, if `run.resume`, continue.

    A resumed run ends bit for bit where an uninterrupted one ends. Of several processes
    (`tsar_jax.processes`) all but the first end with the training.

    Args:
        system: the system that is trained, once for each of `loop.seeds` seeds.
        data: a pytree of arrays, moved to the device once and given to every call.
        loop: settings of the loop.
        run: the folder that is written.
        progress: display of the progress; None: chosen by the terminal.
        first_state: (key) -> a seed's first state in place of the system's, of the same shapes and
            dtypes; not called where there is a checkpoint to continue from.

    Raises:
        UserError: the run cannot begin or continue, or its folder cannot be written any more; the
            state is saved in another folder where that is gone.
        TrainingDiverged: the objective or the state is not finite; the last good checkpoint is
            kept. Of several seeds those that diverge are left out until none remains.
        TrainingInterrupted: Ctrl-C or a signal to stop; the present state is saved.
        ProcessLost: another process of the training has ended.
    """
    if loop.tensorboard:
        check_tensorboard()
    remedy = f"continue with: {run.resume_command()}"
    with processes.noticing_losses(remedy), jax.default_matmul_precision(loop.precision):
        trained = _train(system, data, loop, run, progress, first_state)
        if processes.several():
            own = from_host(to_host(trained.state), trained.state, "state", on_device=False)
            trained = trained._replace(state=own)
            processes.leave()
    return trained


def _train(
    system: System,
    data: Any,
    loop: LoopConfig,
    run: Run,
    progress: Progress | None,
    first_state: Callable[[jax.Array], State] | None,
) -> Trained:
    """Train as `train` does, as one of the processes that there are."""
    if processes.several():
        settings = run.experiment, run.resume, config_to_json(run.config)
        processes.check_same(json.dumps(settings, sort_keys=True) + version_text())
    keys = processes.spread(make_keys(loop.seed, loop.seeds))
    init = make_init(system, loop.seeds)
    with contextlib.ExitStack() as stack:
        progress = progress or make_progress(loop.steps)
        stack.callback(progress.close)
        if processes.is_first():
            size = state_bytes(jax.eval_shape(init, keys.init))
            progress.message(_prepare_folder(run, loop, size))
            stack.enter_context(run_folder.locked(run.path))
            progress.message("compiling ...")
        data = processes.spread(data)
        programs = make_programs(system, data, keys.init, loop.chunk, init, loop.seeds)
        state, step, restored = _init_or_restore(programs, keys, run, first_state)
        files: NoFiles = NoFiles()
        if processes.is_first():
            files = _open_files(stack, programs, loop, run, step, progress)
        stopped = stack.enter_context(caught_signals())
        trainer = _Trainer(programs, data, loop, run, keys, files)
        return trainer.train(state, step, stopped, restored)


def _prepare_folder(run: Run, loop: LoopConfig, size: int) -> str:
    """Make the run's folder, or check the one that is continued, and return its needs in words.

    size: bytes of a checkpoint.
    """
    space = check_space(run.checkpoints, size, loop.keep)
    if run.resume:
        run_folder.check_writable(run.path)
    else:
        run_folder.create_run(run, loop.steps)
    return space


def _open_files(
    stack: contextlib.ExitStack,
    programs: Programs,
    loop: LoopConfig,
    run: Run,
    step: int,
    progress: Progress,
) -> RunFiles:
    """Return the files of a run, to be closed by `stack`."""
    expected = () if run.begun_elsewhere else due_rows(step, loop)
    metrics = MetricsWriter(run.path, programs.columns, step, loop.tensorboard, expected)
    stack.callback(metrics.close)
    arrays = ArrayWriter(run.path, programs.arrays, step, seeds=loop.seeds > 1)
    checkpoints = CheckpointWriter(run.checkpoints, loop.keep)
    stack.callback(checkpoints.close)
    return RunFiles(run, loop.steps, programs.columns, metrics, arrays, checkpoints, progress)


def _init_or_restore(
    programs: Programs, keys: Keys, run: Run, first_state: Callable[[jax.Array], State] | None
) -> tuple[State, int, bool]:
    """Return state and step of the newest intact checkpoint, or the initial ones; and which."""

    def init() -> State:
        if first_state is None:
            return programs.init(keys.init)
        if keys.init.shape:
            states = [strong_types(first_state(key)) for key in keys.init]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            state: State = SeedsState(stacked, jnp.zeros(len(states), bool))
        else:
            state = strong_types(first_state(keys.init))
        return processes.spread(state, programs.places)

    if not run.resume:
        return init(), 0, False
    set_aside = run.path / "damaged_checkpoints"
    newest = processes.first_then_all(
        lambda first: read_newest(run.checkpoints, set_aside=set_aside if first else None)
    )
    processes.check_same(f"checkpoint {newest and newest[1]['sha256']}")
    if newest is None:
        if any(row["step"] > 0 for row in read_rows(run.path)):
            raise UserError(
                f"The checkpoints of {run.path} are gone, though it has metrics: start a new run."
            )
        run.checkpoints.mkdir(exist_ok=True)
        run.figures.mkdir(exist_ok=True)
        return init(), 0, False
    arrays, record = newest
    source = f"checkpoint of step {record['step']} in {run.path}"
    check_config(record, run.config, source)
    like = jax.eval_shape(programs.init, keys.init)
    state = from_host(arrays, like, source, on_device=False)
    return processes.spread(state, programs.places), record["step"], True


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """The parts of one run, and the loop over its chunks."""

    programs: Programs
    data: Any
    loop: LoopConfig
    run: Run
    keys: Keys
    files: NoFiles

    def train(
        self, state: State, step: int, stopped: Callable[[], int | None], restored: bool
    ) -> Trained:
        """Run chunks from `step` to the end, unless a signal comes or the loss diverges.

        Args:
            stopped: returns the signal received, or None.
            restored: whether the state is that of a checkpoint.
        """
        loop, files = self.loop, self.files
        if not restored:
            with self._writing(state, step):
                self._save(state, step)
                # A run with metrics but no checkpoint cannot be resumed.
                files.wait()
        run_chunk = None
        if step < loop.steps:
            run_chunk = self.programs.compile_chunk(state, self.data, self.keys.step)
        lost = lost_seeds(state)
        began = time.perf_counter() - files.wall_s
        while run_chunk is not None and step < loop.steps:
            count = next_boundary(step, loop) - step
            chunk_began = time.perf_counter()
            state, scalars, arrays = run_chunk(
                state, self.data, self.keys.step, np.int32(step), np.int32(count)
            )
            scalars, arrays = jax.device_get((scalars, arrays))
            means = self._means(scalars, step, count)
            files.add_arrays(step, count, arrays)
            step += count
            lost = self._report_lost(state, step, lost)
            if isinstance(state, SeedsState):
                means[LOST_SEEDS] = float(len(lost))
            now = time.perf_counter()
            steps_per_s = count / (now - chunk_began)
            timing = {"wall_s": now - began, "steps_per_s": steps_per_s}
            rows = [{"step": step, "split": "train"} | timing | means]
            if is_due(step, loop.eval_every, loop.steps):
                # Outside `_writing`, which would take an environment's own OSError for a full disk.
                values = self._evaluate(state, step)
                wall = time.perf_counter() - began
                rows.append({"step": step, "split": "eval", "wall_s": wall} | values)
            signum = self._write(state, step, rows, stopped)
            files.show(step, steps_per_s, means)
            if signum is not None and step < loop.steps:
                raise self._interrupted(step, signum)
        with self._writing(state, step):
            files.wait()
        return Trained(state, step, list(files.rows), files.arrays)

    def _write(
        self, state: State, step: int, rows: list[Row], stopped: Callable[[], int | None]
    ) -> int | None:
        """Write rows, and a checkpoint where one is due or a signal came; return the signal."""
        with self._writing(state, step):
            self.files.write_rows(rows)
            signum = processes.any_signal(stopped())
            if signum is not None or is_due(step, self.loop.checkpoint_every, self.loop.steps):
                self._save(state, step)
            if signum is not None:
                self.files.wait()
                processes.meet()  # so that none ends while the first one still saves
        return signum

    def _report_lost(self, state: State, step: int, before: list[int]) -> list[int]:
        """Return the numbers of the lost seeds, and report those that were not lost before."""
        lost = lost_seeds(state)
        for number in sorted(set(lost) - set(before)):
            self.files.message(
                f"seed {self.loop.seed + number} is lost: by step {step} an array of its state was "
                "not finite. It stays as it was before; the others go on."
            )
        return lost

    def _evaluate(self, state: State, step: int) -> dict[str, float]:
        root = self.keys.evaluate
        fold_in = jax.random.fold_in if not root.shape else jax.vmap(jax.random.fold_in, (0, None))
        values = jax.device_get(self.programs.evaluate(state, self.data, fold_in(root, step)))
        return {name: float(value) for name, value in values.items()}

    def _means(self, scalars: dict[str, np.ndarray], step: int, count: int) -> dict[str, float]:
        """Return the mean of every metric over a chunk of `count` steps from `step` on.

        Raises:
            TrainingDiverged: the objective is not finite.
        """
        objective = objective_of(scalars)
        finite = np.isfinite(scalars[objective][:count])
        if not finite.all():
            first = int(np.argmin(finite))
            raise self._diverged(
                step + first + 1, f"The {objective} is {scalars[objective][first]}"
            )
        return {
            name: float(np.mean(values[:count], dtype=np.float64))
            for name, values in scalars.items()
        }

    def _save(self, state: State, step: int) -> None:
        """Begin to save a state, its metrics first. Raises TrainingDiverged if it is not finite."""
        # Before the copy, so that there is never more than one copy of a large state.
        self.files.wait()
        arrays = to_host(state)
        for name, array in arrays.items():
            if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
                raise self._diverged(step, f"The state's {name!r} is not finite")
        self.files.save(step, arrays)

    def _diverged(self, step: int, cause: str) -> TrainingDiverged:
        # That the training diverged matters more than that a save failed as well.
        with contextlib.suppress(SaveFailed):
            self.files.wait()
        processes.meet()
        last = self.files.last_saved()
        return TrainingDiverged(
            f"{cause} at step {step}: {self.programs.remedy} (the last good checkpoint is {last}).",
            step,
        )

    def _writing(self, state: State, step: int) -> contextlib.AbstractContextManager[None]:
        """Return a context that raises UserError where files cannot be written.

        Where the folder is gone, the present state is saved in another one first.
        """

        def present() -> tuple[Arrays, int]:
            if processes.parted(state):
                raise UserError("other processes have parts of it")
            return to_host(state), step

        return self.files.writing(present)

    def _interrupted(self, step: int, signum: int) -> TrainingInterrupted:
        return TrainingInterrupted(
            f"stopped at step {step} of {self.loop.steps}, saved; "
            f"continue with: {self.run.resume_command()}",
            signum,
        )
