"""Compare meta-tested runs: one table and figures over models, seeds pooled.

Example, after anml_meta_test on each run:
  tsar-jax run anml_compare --runs runs/anml-0 runs/anml-1 runs/oml-0 --out results/anml

Runs of the same model, and of the same scale of pixels, are its seeds; ± is over seeds, or, of one
seed of each, over its lifetimes. Runs whose meta-tests had different settings are refused. Writes
OUT/meta_test.json, OUT/table.md and OUT/figures.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tsar_jax import cli
from tsar_jax.errors import UserError
from tsar_jax.systems.episodic.anml import AnmlConfig
from tsar_jax.systems.episodic.anml_presets import EXPERIMENT
from tsar_jax.systems.episodic.meta_test import MetaTestConfig, Result
from tsar_jax.systems.episodic.meta_test_results import (
    RANDOM,
    SCRATCH,
    TRAINED,
    markdown,
    pool_seeds,
    published_series,
    read_results,
)
from tsar_jax.systems.episodic.meta_test_run import write_and_show
from tsar_jax.training.config import config_difference, with_later_fields
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import check_writable, make_folder, read_run, write_atomically

FREE = ("memory", "seed", "baselines", "step", "name")
"""Settings of a meta-test in which compared runs may differ."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The runs to compare."""

    runs: tuple[Path, ...]
    """Folders of meta-tested runs."""
    out: Path
    """Folder to write to."""
    name: str = "head"
    """Meta-test of each run, the NAME of its meta_test-NAME.json; that of preset paper is
    head-data-order-smallest-rate."""


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="anml_compare", description=__doc__)
    if not arguments.runs:
        raise UserError("--runs names no run: name at least one meta-tested run's folder.")
    check_writable(arguments.out, "--out")
    found: dict[str, list[list[Result]]] = {}
    curves: dict[str, list[list[tuple[int, float]]]] = {}
    files = [run / f"meta_test-{arguments.name}.json" for run in arguments.runs]
    stored = [read_results(file) for file in files]
    check_settings(files, [settings for _, settings in stored])
    tests = [conditions for conditions, _ in stored]
    configs = [read_run(path, EXPERIMENT, AnmlConfig) for path in arguments.runs]
    models = [config.model for config in configs]
    names = run_names(configs)
    for path, name, conditions in zip(arguments.runs, names, tests, strict=True):
        for condition, rows in conditions.items():
            label = name if condition == TRAINED else f"{name}, {condition}"
            found.setdefault(label, []).append(rows)
        curve = meta_training_curve(path)
        if curve:  # a run that was imported or comes with the package has none
            curves.setdefault(name, []).append(curve)
    most = max(names.count(name) for name in names)
    seeds = "1 seed" if most == 1 else f"{most} seeds"
    order = sorted(found, key=lambda label: (RANDOM in label) + 2 * (SCRATCH in label))
    # One seed has no spread; its lifetimes have.
    pooled = {label: found[label][0] if most == 1 else pool_seeds(found[label]) for label in order}
    counted = f"{len(pooled[order[0]][0].test)} runs" if most == 1 else seeds
    make_folder(arguments.out, "--out")
    write_and_show(
        arguments.out,
        "meta_test",
        pooled,
        {"runs": [path.name for path in arguments.runs]},
        f"meta-test, {seeds}",
        counted,
        published=models,
    )
    table = markdown(pooled, published_series(models, "accuracy"))
    write_atomically(arguments.out / "table.md", table)
    if not curves:
        print("no curves of meta-training: none of the runs has metrics of it")
        return
    from tsar_jax.systems.episodic.meta_test_figure import learning_figure

    figures = learning_figure(curves, arguments.out / "figures" / "meta_training")
    print(f"figure:  {figures[0]}")


def check_settings(files: Sequence[Path], stored: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError where meta-tests were made with other settings than the first one."""
    protocols = []
    for file, settings in zip(files, stored, strict=True):
        found = settings.get("meta_test")
        if not isinstance(found, Mapping):
            raise UserError(f"{file} lacks its settings: run anml_meta_test again.")
        complete = with_later_fields(MetaTestConfig, found)
        protocols.append({name: value for name, value in complete.items() if name not in FREE})
    for file, protocol in zip(files, protocols, strict=True):
        difference = config_difference(protocols[0], protocol)
        if difference:
            raise UserError(
                f"{files[0]} and {file} were made with different settings ({difference}): "
                "repeat anml_meta_test with the same ones."
            )


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
