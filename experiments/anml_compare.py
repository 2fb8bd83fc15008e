"""Compare meta-tested runs: one table and figures over models, seeds pooled.

Example, after anml_meta_test on each run:
  tsar-jax run anml_compare --runs runs/anml-0 runs/anml-1 runs/oml-0 --out results/anml

Runs of the same model, and of the same scale of pixels, are its seeds. Writes OUT/meta_test.json,
OUT/table.md and OUT/figures.
"""

import dataclasses
from pathlib import Path

import tyro

from experiments._meta_trained import read_run
from experiments.anml_meta_test import RANDOM, SCRATCH, TRAINED, write_and_show
from experiments.anml_meta_train import EXPERIMENT
from tsar_jax import cli
from tsar_jax.errors import UserError
from tsar_jax.evaluation.protocol import Result
from tsar_jax.evaluation.results import markdown, pool_seeds, published_series, read_results
from tsar_jax.systems.anml import AnmlConfig
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import check_writable, write_atomically


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to compare."""

    runs: tuple[Path, ...]
    """Folders of meta-tested runs."""
    out: Path
    """Folder to write to."""
    name: str = "head"
    """Which meta-test of each run: the NAME of its meta_test-NAME.json."""


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__, prog="tsar-jax run anml_compare")
    if not arguments.runs:
        raise UserError("--runs names no run: name at least one meta-tested run's folder.")
    check_writable(arguments.out, "--out")
    found: dict[str, list[list[Result]]] = {}
    curves: dict[str, list[list[tuple[int, float]]]] = {}
    tests = [read_results(run / f"meta_test-{arguments.name}.json")[0] for run in arguments.runs]
    configs = [read_run(path, EXPERIMENT, AnmlConfig) for path in arguments.runs]
    models = [config.model for config in configs]
    names = run_names(configs)
    for path, name, conditions in zip(arguments.runs, names, tests, strict=True):
        for condition, rows in conditions.items():
            label = name if condition == TRAINED else f"{name}, {condition}"
            found.setdefault(label, []).append(rows)
        curves.setdefault(name, []).append(meta_training_curve(path))
    seeds = max(names.count(name) for name in names)
    order = sorted(found, key=lambda label: (RANDOM in label) + 2 * (SCRATCH in label))
    pooled = {label: pool_seeds(found[label]) for label in order}
    write_and_show(
        arguments.out,
        "meta_test",
        pooled,
        {"runs": [path.name for path in arguments.runs]},
        f"meta-test, {seeds} seeds",
        f"{seeds} seeds",
        published=models,
    )
    table = markdown(pooled, published_series(models, "accuracy"))
    write_atomically(arguments.out / "table.md", table)
    from tsar_jax.analysis.meta_test_figure import learning_figure

    figures = learning_figure(curves, arguments.out / "figures" / "meta_training")
    print(f"figure:  {figures[0]}")


def meta_training_curve(path: Path) -> list[tuple[int, float]]:
    """Return a run's steps at which it was evaluated, and its meta-test's accuracy there."""
    return [
        (int(row["step"]), float(row["meta_test_test"]))
        for row in read_rows(path)
        if row["split"] == "eval"
    ]


def run_names(configs: list[AnmlConfig]) -> list[str]:
    """Return each run's model, and its scale of pixels where the runs differ in that."""
    if len({config.pixels for config in configs}) == 1:
        return [config.model for config in configs]
    return [f"{config.model}, {config.pixels}" for config in configs]


if __name__ == "__main__":
    cli.run_main(main)
