"""Compare continual-learning methods on a stream: whatever was not run yet is run, then tabulated.

Examples:
  tsar-jax run continual_table --out results/rot --preset smoke
  tsar-jax run continual_table --out results/rot                 seven methods, three buffers
  tsar-jax run continual_table --out results/360 --stream mnist-360 --methods er derpp synergy
  tsar-jax run continual_table --out results/rot --only-tabulate

Every method runs with its published best hyper-parameters, as continual_train finds them. A run is
a folder OUT/runs/NAME of continual_train; one that was stopped goes on, one that is finished is not
repeated. Writes OUT/accuracy.md (mean and standard deviation over seeds), OUT/measures.md (transfer
and forgetting), OUT/measures.csv (a row per seed and model), OUT/values.md (whose hyper-parameters
each cell took) and OUT/figures. Of a gcil- stream, accuracy.md has two tables: the mean over the
cumulative tests of all phases, which the releases report, and the last.
"""

import dataclasses
from pathlib import Path

from tsar_jax import cli
from tsar_jax.data.continual.registry import GCIL_SETTINGS
from tsar_jax.errors import UserError, check_known, check_positive, check_seed
from tsar_jax.plasticity.methods import METHODS
from tsar_jax.plasticity.methods.published import Release
from tsar_jax.systems.continual.experiment import PreparedExperiment, prepare
from tsar_jax.systems.continual.figures import bars_figure, curves_figure
from tsar_jax.systems.continual.measures import (
    MEASURES,
    RESULT,
    Outcome,
    csv_table,
    markdown_table,
    read_outcome,
    table_rows,
    titled_table,
)
from tsar_jax.systems.continual.presets import DIGITS, EXPERIMENT
from tsar_jax.systems.continual.system import ContinualConfig
from tsar_jax.systems.continual.training import train_experiment
from tsar_jax.training.run import Run, check_writable, load_config, make_folder, write_atomically

SEVEN = ("sgd", "joint", "er", "der", "derpp", "clser", "synergy")


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """The stream, methods and buffers to compare."""

    stream: str = "rot-mnist"
    """Stream, as in continual_train."""
    methods: tuple[str, ...] = SEVEN
    """Rows of the table."""
    buffers: tuple[int, ...] = (200, 500, 1000)
    """Columns of the table; a method without a buffer runs once."""
    seeds: int = 5
    """Seeds of every cell, in one program."""
    seed: int = 0
    """First of the seeds."""
    tasks: int | None = None
    """Tasks of the stream; None: as published."""
    epochs: int | None = None
    """Passes over every task; None: as published."""
    batch: int | None = None
    """New images of a step; None: as published."""
    replay: int | None = None
    """Images of a draw from the buffer; None: as published."""
    phase_size: int | None = None
    """Images of a phase of GCIL; None: as published."""
    published: Release = "synergy"
    """Release, SYNERgy's or CLS-ER's, whose published best is taken where both have one."""
    phase_classes: int | None = None
    """Largest number of classes of a phase of GCIL; None: as published."""
    pretrain_classes: int | None = None
    """Classes of which GCIL's first phase has all images; None: as published, no such phase."""
    schedule_seed: int | None = None
    """Seed of GCIL's phases; None: as published."""
    validation: bool = False
    """Whether a tenth of the training images is held out and tested on, instead of the test set."""
    width: int = 64
    """Filters of ResNet-18's first stage."""
    hidden: tuple[int, ...] = (100, 100)
    """Widths of the multilayer perceptron."""
    only_tabulate: bool = False
    """Whether nothing is run and the runs in OUT/runs are tabulated."""

    def __post_init__(self) -> None:
        for method in self.methods:
            check_known("method", method, METHODS)
        if not self.methods or not self.buffers:
            raise UserError("Name at least one of --methods and one of --buffers.")
        check_positive(self, "seeds")
        check_seed(self, count=self.seeds)
        if self.schedule_seed is not None:
            check_seed(self, "schedule_seed")


PRESETS = {
    "cpu": cli.Preset(TableConfig(), "seven methods, three buffers, 5 seeds of rot-mnist"),
    "smoke": cli.Preset(
        TableConfig(
            "rot-emnist", ("sgd", "er"), (64,), seeds=2, tasks=2, batch=32, replay=32, hidden=(20,)
        ),
        "two methods on two tasks of packaged digits",
    ),
}


def main() -> None:
    config, out, _ = cli.parse_for_output(
        TableConfig, PRESETS, experiment="continual_table", description=__doc__ or ""
    )
    check_writable(out, "--out")
    wanted = {cell_name(*cell): run_config(config, *cell) for cell in cells(config)}
    # Every cell is prepared once before the first runs, so that a wrong setting shows at once.
    values = "".join(f"- {name}: {prepare(cell).values_of}\n" for name, cell in wanted.items())
    make_folder(out, "--out")
    write_atomically(out / "values.md", values)
    print(values)
    outcomes = [
        outcome(config, out / "runs" / name, prepare(cell)) for name, cell in wanted.items()
    ]
    write(out, config.stream, outcomes)


def cells(config: TableConfig) -> list[tuple[str, int]]:
    """Return the methods and buffers to run; a method without a buffer has only the first."""
    return [
        (method, buffer)
        for method in config.methods
        for buffer in (config.buffers if METHODS[method].buffered else config.buffers[:1])
    ]


def cell_name(method: str, buffer: int) -> str:
    """Return the name of a cell and of its run's folder."""
    return f"{method}-{buffer}" if METHODS[method].buffered else method


def outcome(config: TableConfig, path: Path, wanted: PreparedExperiment) -> Outcome:
    """Return the results of a cell's run in the folder `path`, after running it to its end."""
    if (path / "config.json").exists():
        stored = load_config(path, ContinualConfig)
        check_same(stored, wanted.config, path)
        if not (path / RESULT).exists():
            prepared = prepare(stored)
            train_experiment(prepared, _run(path, prepared.config, resume=True))
    elif config.only_tabulate:
        raise UserError(f"There is no run {path}: leave out --only-tabulate.")
    else:
        train_experiment(wanted, _run(path, wanted.config, resume=False))
    return read_outcome(path)


def run_config(config: TableConfig, method: str, buffer: int) -> ContinualConfig:
    """Return the config of a cell's run, with hyper-parameters left to the published best."""
    general = ("stream", "seeds", "seed", "tasks", "epochs", "batch", "replay", "validation")
    return dataclasses.replace(
        DIGITS,
        method=method,
        buffer=buffer,
        width=config.width,
        hidden=config.hidden,
        **{name: getattr(config, name) for name in (*general, *GCIL_SETTINGS, "published")},
    )


def check_same(stored: ContinualConfig, wanted: ContinualConfig, path: Path) -> None:
    """Raise UserError where a folder holds a run of other settings.

    The buffer of a method that has none makes no difference.
    """
    for field in dataclasses.fields(wanted):
        old, new = getattr(stored, field.name), getattr(wanted, field.name)
        if field.name == "buffer" and not METHODS[wanted.method].buffered:
            continue
        if old != new:
            raise UserError(
                f"{path} is a run with {field.name} {old}, not {new}: name another --out, or "
                "remove that folder."
            )


def _run(path: Path, config: ContinualConfig, resume: bool) -> Run:
    return Run(path, config, EXPERIMENT, "cpu", resume)


def write(out: Path, stream: str, outcomes: list[Outcome]) -> None:
    """Write tables and figures of all outcomes."""
    parts = {
        name: titled_table(outcomes, name) for name in MEASURES if table_rows(outcomes, name)[1]
    }
    cumulative = any(outcome.cumulative for outcome in outcomes)
    accuracy = (
        "\n".join(parts[name] for name in ("accuracy", "last_accuracy") if name in parts)
        if cumulative
        else markdown_table(outcomes, "accuracy")
    )
    write_atomically(out / "accuracy.md", accuracy)
    write_atomically(out / "measures.md", "\n".join(parts.values()))
    write_atomically(out / "measures.csv", csv_table(outcomes))
    print(accuracy)
    buffers = sorted({outcome.buffer for outcome in outcomes if outcome.buffer}) or [0]
    panels = {
        f"buffer {buffer}": [o for o in outcomes if o.buffer in (0, buffer)] for buffer in buffers
    }
    several = any(outcome.accuracy.shape[1] > 1 for outcome in outcomes)
    if several:
        figure, _ = curves_figure(panels, out / "figures" / "curves", stream)
        print(f"figure: {figure}")
    figure, _ = bars_figure(outcomes, out / "figures" / "accuracy", stream)
    print(f"figure: {figure}")
    print(f"tables: {out / 'accuracy.md'}, {out / 'measures.md'}, {out / 'measures.csv'}")


if __name__ == "__main__":
    cli.run_main(main)
