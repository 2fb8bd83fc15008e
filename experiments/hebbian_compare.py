"""Compare evolutions: how fast strategies, optimisers or rules improve on the same lifetimes.

Example, after runs of hebbian_evolve that differ in strategy, optimiser or rule:
  tsar-jax run hebbian_compare --runs runs/sgd-* runs/adam-* runs/snes-* --out results/strategies

Runs whose settings differ in nothing but the seed are repetitions, drawn together; others are told
apart by strategy and optimiser, and where these are the same by what differs. Writes
OUT/strategies.md, OUT/strategies.csv and OUT/figures/learning.png, with a PDF. A panel is an
environment, its curves the mean fitness of the population against the lifetimes lived so far.
"""

import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tsar_jax import cli
from tsar_jax.errors import UserError
from tsar_jax.evaluation.spread import UNBOUNDED, deviation_band, spread_text
from tsar_jax.systems.hebbian.evolved import read_config
from tsar_jax.systems.hebbian.figures import Course, learning_figure, series
from tsar_jax.systems.hebbian.system import HebbianConfig
from tsar_jax.training.config import config_to_json, flatten_config
from tsar_jax.training.loop import LoopConfig
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import check_writable, make_folder, write_atomically

Panels = dict[str, dict[str, list[Course]]]
"""The courses of runs, by environment and by what tells them from others."""

LAST = 10
"""Generations at the end whose mean fitness the table has."""
NO_DIFFERENCE = {
    *(field.name for field in dataclasses.fields(LoopConfig)),
    *("environment", "evaluations", "evolution.strategy", "evolution.optimiser"),
}
"""Settings that tell no kind of run from another, or that every label has."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The runs to compare."""

    runs: tuple[Path, ...]
    """Folders of runs of hebbian_evolve."""
    out: Path
    """Folder to write to."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("--runs names no run: name at least one run of hebbian_evolve.")


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="hebbian_compare", description=__doc__)
    check_writable(arguments.out, "--out")
    configs = {path: read_config(path) for path in arguments.runs}
    labels = labels_of(configs)
    panels: Panels = {}
    for path, config in configs.items():
        rows = read_rows(path)
        if not any(row["split"] == "train" for row in rows):
            raise UserError(f"{path} has no generation yet: leave it out, or let it evolve.")
        generations, mean = series(rows, "train", "fitness_mean")
        centre = series(rows, "eval", "fitness")[1]
        course = Course(path.name, generations, generations * lifetimes_of(config), mean, centre)
        panels.setdefault(config.environment, {}).setdefault(labels[path], []).append(course)
    make_folder(arguments.out, "--out")
    table = table_of(panels)
    write_atomically(arguments.out / "strategies.md", table)
    write_atomically(arguments.out / "strategies.csv", csv_of(panels))
    print(table)
    print(f"figure: {learning_figure(panels, arguments.out / 'figures' / 'learning')}")


def lifetimes_of(config: HebbianConfig) -> int:
    """Return how many lifetimes a generation lives."""
    return config.evolution.population * config.rollouts * len(config.bodies)


def labels_of(configs: Mapping[Path, HebbianConfig]) -> dict[Path, str]:
    """Return for each run its strategy and optimiser, and in what else it differs from others.

    Those are the runs of the same environment, strategy and optimiser: "SNES, adam, population 40".
    """
    flat = {path: flatten_config(config_to_json(config)) for path, config in configs.items()}
    alike: dict[tuple[str, str], list[Path]] = {}
    for path, config in configs.items():
        evolution = config.evolution
        name = ", ".join(filter(None, (evolution.strategy, evolution.optimiser)))
        alike.setdefault((config.environment, name), []).append(path)
    labels = {}
    for (_, name), paths in alike.items():
        differ = [
            setting
            for setting in flat[paths[0]]
            if setting not in NO_DIFFERENCE
            and len({repr(flat[path][setting]) for path in paths}) > 1
        ]
        for path in paths:
            others = [f"{setting.rpartition('.')[2]} {flat[path][setting]}" for setting in differ]
            labels[path] = ", ".join([name, *others])
    return labels


def table_of(panels: Panels) -> str:
    """Return a Markdown table: mean and standard deviation over runs at the end of evolution."""
    lines = [
        f"| environment | evolution | runs | lifetimes | last {LAST} generations | "
        "centre at the end |",
        "|---|---|---|---|---|---|",
    ]
    for environment, kinds in panels.items():
        for label, runs in kinds.items():
            ends = [run.mean[run.generations > run.generations[-1] - LAST].mean() for run in runs]
            centres = [run.centre[-1] if len(run.centre) else np.nan for run in runs]
            shown = [
                spread_text(np.asarray(values), deviation_band, UNBOUNDED, lambda v: f"{v:.1f}")
                for values in (ends, centres)
            ]
            lived = int(runs[0].lifetimes[-1])
            lines.append(
                f"| {environment} | {label} | {len(runs)} | {lived:,} | {shown[0]} | {shown[1]} |"
            )
    return "\n".join([*lines, "", "± is the standard deviation over runs.", ""])


def csv_of(panels: Panels) -> str:
    """Return every row of every run as CSV: means over the generations of a chunk."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["environment", "label", "run", "lifetimes", "fitness_mean"])
    for environment, kinds in panels.items():
        for label, runs in kinds.items():
            for run in runs:
                for lived, mean in zip(run.lifetimes, run.mean, strict=True):
                    writer.writerow([environment, label, run.name, int(lived), f"{mean:.4f}"])
    return text.getvalue()


if __name__ == "__main__":
    cli.run_main(main)
