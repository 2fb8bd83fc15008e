"""Compare transferred runs: one table and one figure over models, seeds pooled.

Examples, after tsar_transfer on each run (with --baselines where "from scratch" is wanted):
  tsar-jax run tsar_compare --runs runs/tsar-0 runs/tsar-1 runs/anml-0 --out results/tsar
  tsar-jax run tsar_compare --runs runs/tsar-* --out results/cifar100 --name cifar100-random

Runs of the same model are its seeds; where something else learned than published (--plastic,
--rln), they are a condition of their own, which says so (give their transfer the others' --name).
Runs transferred otherwise differently are refused. Writes OUT/transfer.json, OUT/table.md and
OUT/figures/transfer.png and .pdf: how well each class is recognised right after it was learned,
and at the end.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tsar_jax import cli
from tsar_jax.errors import UserError
from tsar_jax.systems.episodic.meta_test import Result
from tsar_jax.systems.episodic.meta_test_results import (
    SCRATCH,
    TRAINED,
    percent,
    pool_seeds,
    read_results,
    results_to_json,
)
from tsar_jax.systems.episodic.transfer_arguments import TransferArguments, names_of_plastic
from tsar_jax.systems.episodic.transfer_files import comparable_settings, read_arguments
from tsar_jax.systems.episodic.tsar import TsarConfig, effective_config, learns_as_published
from tsar_jax.systems.episodic.tsar_presets import EXPERIMENT
from tsar_jax.terminal import print_tables
from tsar_jax.training.config import config_difference, config_to_json
from tsar_jax.training.loop import LoopConfig
from tsar_jax.training.run import check_writable, make_folder, read_run, write_atomically

MODELS = {"tsar": "TSAR", "anml": "ANML", "unregulated": "unregulated"}
"""Names of the models in tables and figures."""

COLUMNS = ("right after the class", "at the end", "learned images, at the end", "chance")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The runs to compare."""

    runs: tuple[Path, ...]
    """Folders of transferred runs."""
    out: Path
    """Folder to write to."""
    name: str = "mini_imagenet-random"
    """Transfer of each run, the NAME of its transfer-NAME.json; that of preset paper is
    mini_imagenet-random-retention."""


class Transferred(NamedTuple):
    """Transfer of one run.

    label: name of the model in tables, with what learns where that is not as published. results:
    results by condition. right_after: accuracies right after each class [runs, classes], by
    condition. settings: those of the transfer that must agree. training: settings of the
    meta-training, but for the seed.
    """

    path: Path
    label: str
    results: dict[str, Result]
    right_after: dict[str, np.ndarray]
    settings: dict[str, Any]
    training: dict[str, Any]


class Pooled(NamedTuple):
    """One condition pooled over seeds.

    result: result, each seed's mean being one run. right_after: accuracies right after each class
    [seeds, classes].
    """

    result: Result
    right_after: np.ndarray


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="tsar_compare", description=__doc__)
    if not arguments.runs:
        raise UserError("--runs names no run: name at least one transferred run's folder.")
    runs = [read_transfer(path, arguments.name) for path in arguments.runs]
    check_comparable(runs)
    check_writable(arguments.out, "--out")
    write_and_show(arguments.out, runs, pool(runs))


def read_transfer(path: Path, name: str) -> Transferred:
    """Return the transfer that tsar_transfer wrote to a run. Raises UserError for anything else."""
    config = read_run(path, EXPERIMENT, TsarConfig)
    file = path / f"transfer-{name}.json"
    conditions, settings = read_results(file, "tsar_transfer")
    try:
        results = {condition: row for condition, [row] in conditions.items()}
        right_after = {
            condition: np.array(settings["right_after"][condition], float).reshape(-1, row.classes)
            for condition, row in results.items()
        }
        arguments = read_arguments(settings["transfer"], config.model, str(file))
        step = settings["step"]
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} does not hold results of tsar_transfer ({error!r}): run tsar_transfer again."
        ) from None
    training = {"step": step, **training_settings(config)}
    label = model_label(config, arguments)
    transfer = comparable_settings(arguments)
    return Transferred(path, label, results, right_after, transfer, training)


def model_label(config: TsarConfig, arguments: TransferArguments) -> str:
    """Return a model's name in tables and figures, such as "ANML, learning trunk head"."""
    plastic = names_of_plastic(arguments, config)
    name = MODELS[config.model]
    if learns_as_published(config, plastic):
        return name
    if arguments.rln is not None:
        return f"{name}, rln {arguments.rln}"
    return f"{name}, learning {' '.join(plastic)}"


def training_settings(config: TsarConfig) -> dict[str, Any]:
    """Return the settings by which two runs' networks differ, but for the seed."""
    loop = {field.name for field in dataclasses.fields(LoopConfig)}
    return {
        name: value
        for name, value in config_to_json(effective_config(config)).items()
        if name not in loop and not name.startswith("eval_") and name != "microbatch"
    }


def check_comparable(runs: list[Transferred]) -> None:
    """Raise UserError for a run named twice, unequal settings, or a label's unequal seeds."""
    first_of_label: dict[str, Transferred] = {}
    seen: set[Path] = set()
    for run in runs:
        if run.path.resolve() in seen:
            raise UserError(f"--runs names {run.path} twice: name each run once.")
        seen.add(run.path.resolve())
        difference = config_difference(runs[0].settings, run.settings)
        if difference:
            raise UserError(
                f"{runs[0].path} and {run.path} were transferred differently ({difference}): "
                "repeat tsar_transfer with the same settings."
            )
        seed = first_of_label.setdefault(run.label, run)
        difference = config_difference(seed.training, run.training)
        if difference:
            raise UserError(
                f"{seed.path} and {run.path} are not seeds of one {run.label} ({difference}): "
                "leave one of them out."
            )


def pool(runs: list[Transferred]) -> dict[str, Pooled]:
    """Return conditions by label, such as "ANML, from scratch", networks from scratch last."""
    found: dict[str, list[tuple[Result, np.ndarray]]] = {}
    for condition in (TRAINED, SCRATCH):
        for run in runs:
            if condition in run.results:
                label = run.label if condition == TRAINED else f"{run.label}, {condition}"
                seed = run.results[condition], run.right_after[condition]
                found.setdefault(label, []).append(seed)
    pooled = {}
    for label, seeds in found.items():
        [result] = pool_seeds([[result] for result, _ in seeds])
        at_end = [np.mean(result.per_class, 0).tolist() for result, _ in seeds]
        right_after = np.array([soon.mean(0) for _, soon in seeds])
        pooled[label] = Pooled(dataclasses.replace(result, per_class=at_end), right_after)
    return pooled


def accuracy_rows(pooled: Mapping[str, Pooled]) -> list[list[str]]:
    """Return the table, its head first: accuracies over seeds with 95 % bands, by condition."""
    return [
        ["condition", "seeds", *COLUMNS],
        *(
            [
                label,
                str(len(right_after)),
                percent(right_after.mean(1).tolist()),
                percent(result.test),
                percent(result.train),
                percent([1 / result.classes]),
            ]
            for label, (result, right_after) in pooled.items()
        ),
    ]


def write_and_show(out: Path, runs: list[Transferred], pooled: Mapping[str, Pooled]) -> None:
    """Write JSON, table and figure below `out`; print the table and where they are."""
    from rich.table import Table

    from tsar_jax.systems.episodic.transfer_figure import forgetting_figure

    settings = {
        "runs": [run.path.name for run in runs],
        "transfer": runs[0].settings,
        "right_after": {label: p.right_after.tolist() for label, p in pooled.items()},
    }
    results = {label: [p.result] for label, p in pooled.items()}
    make_folder(out, "--out")
    write_atomically(out / "transfer.json", results_to_json(results, settings))
    head, *rows = accuracy_rows(pooled)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    markdown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    write_atomically(out / "table.md", f"{markdown}\n")
    curves = {label: (p.right_after, np.array(p.result.per_class)) for label, p in pooled.items()}
    figures = forgetting_figure(curves, out / "figures" / "transfer", "seeds")
    transfer = runs[0].settings
    title = f"transfer to {transfer['classes']} classes of {transfer['target']}"
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row)
    print_tables(table, width=120)
    print(f"results: {out / 'transfer.json'}")
    print(f"table:   {out / 'table.md'}")
    print(f"figure:  {figures[0]}")


if __name__ == "__main__":
    cli.run_main(main)
