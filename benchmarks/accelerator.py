"""Benchmarks, then the published trainings in slices: `python -m benchmarks.accelerator --help`."""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.__main__ import ROOT, Row, RunOne, run_in_subprocess
from tsar_jax.cli import exit_code
from tsar_jax.cli.flags import parse_arguments
from tsar_jax.errors import UserError, check_known
from tsar_jax.precision import FAST, FULL
from tsar_jax.training.errors import TrainingInterrupted
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import check_writable, make_folder, write_atomically

DESCRIPTION = (
    "Runs all benchmarks on the devices that there are, then the presets `paper`, a slice of each "
    "in turn, and writes one JSON file and one table. When the command is called again, what was "
    "stopped goes on where it was, and what is finished is not repeated."
)
SAVING_SECONDS = 120
"""Time that a training has to save its state after a slice, before it is killed."""
SHORTEST_SECONDS = 60
"""Time below which no training is begun: it would compile and be stopped."""
STOPPED_CODES = (128 + signal.SIGTERM, -signal.SIGTERM)
"""Exit codes of a training that was stopped, after it saved its state or before it had one."""
RESULTS = "accelerator.json"
REPEATS = 12
"""Timed calls of each benchmark."""


class Training(NamedTuple):
    """A training of the published size.

    name: name of its folder. experiment, preset: of `tsar-jax run`. headline: the metric of its
    evaluations that the table shows. benchmark: name of the benchmark of its step. precision: of
    products.
    """

    name: str
    experiment: str
    preset: str
    headline: str
    benchmark: str
    precision: str = FULL

    @property
    def settings(self) -> tuple[str, ...]:
        """Return preset and precision as flags of the command line."""
        precision = () if self.precision == FULL else ("--precision", self.precision)
        return "--preset", self.preset, *precision


TRAININGS = (
    Training("anml", "anml_meta_train", "paper", "meta_test_test", "anml_first_order"),
    # What factors of 10 bits change in the result, beside what they save in time.
    Training("anml-tf32", "anml_meta_train", "paper", "meta_test_test", "anml_first_order", FAST),
    Training("oml", "anml_meta_train", "paper-oml", "meta_test_test", "anml_first_order"),
    Training("tsar", "tsar_meta_train", "paper", "meta_test_test", "tsar"),
    Training("rules", "plasticity_meta_train", "paper", "accuracy", "rule_episode"),
    Training("quadruped", "hebbian_evolve", "paper", "fitness", "hebbian_quadruped"),
    Training("quadruped-static", "hebbian_evolve", "paper-static", "fitness", "hebbian_quadruped"),
    Training("car", "hebbian_evolve", "paper-car", "fitness", "car_lives"),
    Training("synergy", "continual_train", "paper", "accuracy", "resnet_step"),
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's settings. Raises UserError for what is none."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator", description=DESCRIPTION
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the runs, the JSON file and the table (default: runs/accelerator, or "
        "runs/accelerator-small)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="time after which this call trains no more (default: until all is finished)",
    )
    parser.add_argument(
        "--slice",
        type=float,
        default=9.0,
        help="minutes of one training before the next has its turn (default: %(default)s)",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these trainings (default: all), no benchmarks"
    )
    parser.add_argument(
        "--small", action="store_true", help="tiny sizes, only to see that everything runs"
    )
    options = parse_arguments(parser, sys.argv[1:] if arguments is None else arguments)
    for name in ("minutes", "slice"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name} must be positive, but is {value}.")
    default = "runs/accelerator-small" if options.small else "runs/accelerator"
    options.out = (options.out or Path(default)).resolve()
    return options


def run(arguments: Sequence[str] | None, run_one: RunOne = run_in_subprocess) -> int:
    """Measure and train until everything is finished or the time is over; write as it goes on.

    Returns:
        0, or 1 where a benchmark or a training failed.
    """
    options = parse(arguments)
    from benchmarks.report import print_accelerator, print_results

    chosen = [t for t in TRAININGS if options.only is None or t.name in options.only]
    for name in options.only or ():
        check_known("training", name, [training.name for training in TRAININGS])
    check_writable(options.out, "--out")
    make_folder(options.out, "--out")
    deadline = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    results = _earlier(options.out / RESULTS)

    def write() -> None:
        write_atomically(options.out / RESULTS, json.dumps(results, indent=2) + "\n")

    with _stopping_children():
        widths = "small" if options.small else "paper"
        results["machine"] = run_one("machine", widths, 1, FULL)
        if options.only is None:
            _measure(results, widths, run_one, deadline, write)
        _train(results, chosen, options, deadline, write)
    write()
    if results.get("benchmarks"):
        print_results({**results, "benchmarks": list(results["benchmarks"].values())})
    table = print_accelerator(results)
    write_atomically(options.out / "accelerator.md", table)
    print(f"written to {options.out / RESULTS} and accelerator.md beside it")
    rows = [results["machine"], *results.get("benchmarks", {}).values()]
    return int(any("error" in row for row in (*rows, *results["trainings"].values())))


def _earlier(path: Path) -> dict[str, Any]:
    """Return the results of an earlier call, {} where there was none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is no JSON file ({error}): move it away.") from error
    return dict(found)


def _measure(
    results: dict[str, Any],
    widths: str,
    run_one: RunOne,
    deadline: float,
    write: Callable[[], None],
) -> None:
    """Run the benchmarks that have not been run on this kind of device."""
    from benchmarks.suite import choose

    rows: dict[str, Row] = results.setdefault("benchmarks", {})
    device = results["machine"].get("device")
    for benchmark in choose(None):
        row = rows.get(benchmark.name, {})
        if time.monotonic() < deadline and (row.get("device"), row.get("widths")) != (
            device,
            widths,
        ):
            print(f"measuring {benchmark.name} ...", file=sys.stderr, flush=True)
            row = {**run_one(benchmark.name, widths, REPEATS, FULL), "device": device}
            if results["machine"].get("backend") != "cpu" and "error" not in row:
                fast = run_one(benchmark.name, widths, REPEATS, FAST)
                row["seconds_min_tensorfloat32"] = fast.get("seconds_min")
            rows[benchmark.name] = row
            write()


def _train(
    results: dict[str, Any],
    trainings: Sequence[Training],
    options: argparse.Namespace,
    deadline: float,
    write: Callable[[], None],
) -> None:
    """Give the trainings a slice each, in turn, until all are finished or the time is over."""
    rows: dict[str, Row] = results.setdefault("trainings", {})
    if options.small:
        trainings = [training._replace(preset="smoke") for training in trainings]
    pending = [t for t in trainings if not is_finished(rows.get(t.name, {}), t)]
    while pending:
        for training in list(pending):
            left = deadline - time.monotonic()
            if left < SHORTEST_SECONDS:
                return
            seconds = min(60 * options.slice, left)
            folder, before = options.out / training.name, rows.get(training.name, {})
            print(f"training {training.name} ...", file=sys.stderr, flush=True)
            code = _slice(training, folder, seconds)
            row = progress_of(training, folder, code)
            if code in STOPPED_CODES and row.get("step", 0) == before.get("step", 0):
                row["error"] = f"no step within {seconds / 60:.2g} minutes: raise --slice"
            rows[training.name] = {**row, "device": results["machine"].get("device")}
            if "error" in row or is_finished(row, training):
                pending.remove(training)
            write()


def _slice(training: Training, folder: Path, seconds: float) -> int:
    """Train for some seconds, then let the training save its state; return its exit code."""
    begun = (folder / "config.json").exists()
    where = ["--resume", str(folder)] if begun else ["--out", str(folder)]
    command = [sys.executable, "-m", "tsar_jax", "run", training.experiment, *where]
    command += training.settings
    with (
        folder.with_suffix(".log").open("a", encoding="utf-8") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT) as child,
    ):
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
        finally:
            if child.poll() is None:
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(SAVING_SECONDS)
                child.kill()
        return child.wait()


def progress_of(training: Training, folder: Path, code: int) -> Row:
    """Return a training's row: how far it is, how long it took and what it has reached.

    Args:
        training: which one.
        folder: the run's.
        code: exit code of its latest slice.
    """
    row: Row = {
        "command": f"tsar-jax run {training.experiment} {' '.join(training.settings)}",
        "preset": training.preset,
        "benchmark": training.benchmark,
    }
    if code not in (0, *STOPPED_CODES):
        lines = folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace").split("\n")
        row["error"] = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    if not (folder / "config.json").exists():
        return row
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    metrics = read_rows(folder)
    steps = [r for r in metrics if r["split"] == "train"]
    evaluations = [r for r in metrics if r["split"] == "eval" and training.headline in r]
    row |= {"steps": config["steps"], "step": steps[-1]["step"] if steps else 0}
    if steps:
        row |= {"seconds": steps[-1]["wall_s"], "steps_per_second": steps[-1]["steps_per_s"]}
    if evaluations:
        row |= {"headline": training.headline, "result": evaluations[-1][training.headline]}
    return row


def is_finished(row: Row, training: Training) -> bool:
    """Return whether a row says that a training has taken all its steps."""
    ended = "error" not in row and "step" in row and row["step"] == row["steps"]
    return ended and row["preset"] == training.preset


@contextlib.contextmanager
def _stopping_children() -> Iterator[None]:
    """Let SIGTERM raise an error in the block, as Ctrl-C does, so that a child is told."""

    def stop(signum: int, frame: Any) -> None:
        raise TrainingInterrupted(STOPPED, signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


STOPPED = "stopped: what was trained is saved; the same command goes on"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 1 if something failed, 2 after bad input, 130 or 143 if stopped."""
    return exit_code(lambda: run(arguments), STOPPED)


if __name__ == "__main__":
    sys.exit(main())
