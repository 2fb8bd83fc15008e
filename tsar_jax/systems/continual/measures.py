"""Results of a continual learner: its matrix of accuracies, and the measures computed from it.

Lopez-Paz and Ranzato (2017), arXiv 1706.08840: a[i, j] is the accuracy on test j after task i.
In a cumulative stream (GCIL) test j is of all classes seen until task j's end. Its average accuracy
is the mean over the tests of all phases, which the releases of CLS-ER and SYNERgy report; the
accuracy on the last of them, on all classes seen, stands beside it.
"""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tsar_jax.data.continual.registry import split_name
from tsar_jax.errors import UserError
from tsar_jax.evaluation.published_results import (
    LEGEND,
    Published,
    best_sourced,
    find_published,
    joined_figures,
)
from tsar_jax.evaluation.spread import PROPORTION, Limits, deviation_band, spread_text
from tsar_jax.training.run import write_atomically
from tsar_jax.untrusted.files import read_json

ACCURACY, RESULT = "accuracy.csv", "result.json"
FORMAT = 1
MEASURES = {
    "accuracy": "average accuracy",
    "last_accuracy": "accuracy on all classes seen",
    "task_accuracy": "average accuracy, task-incremental",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
    "forgetting": "forgetting",
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Measurements of a run.

    method, stream, buffer: the run's settings.
    seeds: the first and their number.
    models: those tested.
    reported: the one whose accuracy is the result.
    kind: of the stream, "domain", "class" or "general".
    cumulative: whether test i is of all classes seen after task i.
    accuracy: float [seeds, tasks, tests, models, 2], class-incremental and task-incremental, nan
        where not tested.
    untrained: float [seeds, tests], accuracy of networks that learned nothing.
    settings: everything else of the run.
    """

    method: str
    stream: str
    buffer: int
    seeds: tuple[int, int]
    models: tuple[str, ...]
    reported: str
    kind: str
    cumulative: bool
    accuracy: np.ndarray
    untrained: np.ndarray
    settings: Mapping[str, Any]

    def matrix(self, model: str | None = None, incremental: int = 0) -> np.ndarray:
        """Return accuracies [seeds, tasks, tests] of a model, by default the reported one.

        incremental: 0 for class-incremental, 1 for task-incremental.
        """
        return self.accuracy[..., self.models.index(model or self.reported), incremental]


def average_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Return the mean over all tests after the last task. matrix [.., tasks, tests] -> [..]."""
    return matrix[..., -1, :].mean(-1)


def last_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Return the accuracy on the last test after the last task.

    matrix [.., tasks, tests] -> [..].
    """
    return matrix[..., -1, -1]


def backward_transfer(matrix: np.ndarray) -> np.ndarray:
    """Return mean_{j < T} a[T, j] - a[j, j]: the effect of later tasks on earlier ones."""
    own = np.diagonal(matrix, axis1=-2, axis2=-1)
    return (matrix[..., -1, :-1] - own[..., :-1]).mean(-1)


def forward_transfer(matrix: np.ndarray, untrained: np.ndarray) -> np.ndarray:
    """Return mean_{j > 1} a[j-1, j] - b[j]: the effect of earlier tasks on those not yet learned.

    untrained [.., tests]: b, the accuracy of networks that learned nothing.
    """
    before = np.diagonal(matrix, offset=1, axis1=-2, axis2=-1)
    return (before - untrained[..., 1:]).mean(-1)


def forgetting(matrix: np.ndarray) -> np.ndarray:
    """Return mean_{j < T} max_{i < T} a[i, j] - a[T, j] (Chaudhry et al. 2018)."""
    tasks = matrix.shape[-2]
    learned = np.arange(tasks)[:, None] >= np.arange(matrix.shape[-1])
    best = np.where(learned, matrix, -np.inf)[..., :-1, :-1].max(-2)
    return (best - matrix[..., -1, :-1]).mean(-1)


def measures(outcome: Outcome, model: str | None = None) -> dict[str, np.ndarray]:
    """Return a model's measures by name, by default those of the reported model: each [seeds].

    The average is missing where a result was written when only the last test of a cumulative stream
    was measured.
    """
    matrix = outcome.matrix(model)
    average = average_accuracy(matrix)
    by_name = {} if outcome.cumulative and np.isnan(average).all() else {"accuracy": average}
    if outcome.cumulative:
        by_name["last_accuracy"] = last_accuracy(matrix)
    tasks, tests = matrix.shape[-2:]
    if outcome.kind == "class" and not outcome.cumulative:
        by_name["task_accuracy"] = average_accuracy(outcome.matrix(model, 1))
    if tasks > 1 and tasks == tests and not outcome.cumulative:
        by_name["backward_transfer"] = backward_transfer(matrix)
        by_name["forward_transfer"] = forward_transfer(matrix, outcome.untrained)
        by_name["forgetting"] = forgetting(matrix)
    return by_name


def measure_title(name: str, cumulative: bool) -> str:
    """Return a measure's title, which for an average over cumulative tests says so."""
    over = " over the cumulative tests of all phases"
    return MEASURES[name] + (over if cumulative and name == "accuracy" else "")


def main_measure(outcomes: Sequence[Outcome]) -> str:
    """Return the name of the accuracy that all outcomes have: the average, or else the last."""
    return "accuracy" if all("accuracy" in measures(o) for o in outcomes) else "last_accuracy"


def measure_limits(name: str) -> Limits:
    """Return the limits of a measure: differences of accuracies may be negative."""
    return PROPORTION if name.endswith("accuracy") else (-1.0, 1.0)


def mean_and_deviation(
    values: np.ndarray, percent: bool = True, limits: Limits = PROPORTION
) -> str:
    """Return a measure over seeds as the field's tables have it: "85.01 ± 1.90".

    ± is the sample standard deviation over seeds, as in the figures; see `spread_text`.

    Args:
        values: shares [seeds]; NaN of a lost seed, which is counted.
        percent: whether to write them times 100.
        limits: between which the shares lie.
    """
    factor = 100 if percent else 1
    ends = (factor * limits[0], factor * limits[1])
    return spread_text(factor * values, deviation_band, ends, "{:.2f}".format)


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write accuracy.csv, a row per accuracy, and result.json, which `read_outcome` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seed", "model", "after_task", "test", "class_il", "task_il"])
    seeds, tasks, tests = outcome.accuracy.shape[:3]
    for seed, task, test, model in np.ndindex(seeds, tasks, tests, len(outcome.models)):
        values = outcome.accuracy[seed, task, test, model]
        if not np.isnan(values).any():
            row = [outcome.seeds[0] + seed, outcome.models[model], task, test]
            writer.writerow([*row, *(f"{value:.6f}" for value in values)])
    write_atomically(folder / ACCURACY, text.getvalue())
    content = dataclasses.asdict(outcome) | {
        "format": FORMAT,
        "accuracy": np.where(np.isnan(outcome.accuracy), -1, outcome.accuracy).tolist(),
        "untrained": outcome.untrained.tolist(),
    }
    write_atomically(folder / RESULT, json.dumps(content) + "\n")


def read_outcome(folder: Path) -> Outcome:
    """Return the outcome that `write_outcome` wrote.

    Raises:
        UserError: the file is missing or not such a file.
    """
    path = folder / RESULT
    remedy = f"run or resume continual_train in {folder}"
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{folder} has no {RESULT}: {remedy} to its end.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {remedy}.") from error
    try:
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        for name in ("accuracy", "untrained"):
            content[name] = np.asarray(content[name], float)
        for name in ("seeds", "models"):
            content[name] = tuple(content[name])
        content["accuracy"] = np.where(content["accuracy"] < 0, np.nan, content["accuracy"])
        outcome = Outcome(**content)
        if outcome.accuracy.ndim != 5 or outcome.accuracy.shape[3] != len(outcome.models):
            raise ValueError("its accuracies are of another shape")
        outcome.matrix()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a result ({error}): {remedy}.") from error
    return outcome


def table_rows(
    outcomes: Sequence[Outcome], measure: str, percent: bool = True
) -> tuple[list[int], dict[str, dict[int, str]]]:
    """Return buffer sizes, and a measure's text by method and buffer size; 0 for no buffer."""
    texts: dict[str, dict[int, str]] = {}
    for outcome in outcomes:
        values = measures(outcome).get(measure)
        if values is not None:
            row = texts.setdefault(outcome.method, {})
            row[outcome.buffer] = mean_and_deviation(values, percent, measure_limits(measure))
    buffers = sorted({buffer for row in texts.values() for buffer in row if buffer})
    return buffers, texts


def markdown_table(outcomes: Sequence[Outcome], measure: str) -> str:
    """Return methods x buffers in Markdown; a method without a buffer repeats in every column.

    A last column holds published results of the stream at these buffers, where there are any and
    the accuracies are on test images too; a line below names the kinds of their sources.
    """
    buffers, texts = table_rows(outcomes, measure)
    columns = buffers or [0]
    head = [f"buffer {buffer}" if buffer else "accuracy" for buffer in columns]
    rows = {
        method: [row.get(buffer, row.get(0, "")) for buffer in columns]
        for method, row in texts.items()
    }
    published = {}
    if not outcomes[0].settings.get("validation"):
        tasks = outcomes[0].accuracy.shape[1]
        published = published_column(outcomes[0].stream, measure, list(rows), columns, tasks)
    if published:
        head.append("published")
        rows = {method: [*cells, published.get(method, "")] for method, cells in rows.items()}
    lines = [f"| method | {' | '.join(head)} |", "|---|" + "---|" * len(head)]
    lines += [f"| {method} | {' | '.join(cells)} |" for method, cells in rows.items()]
    if published:
        lines += ["", f"Published: full-size networks and streams, same buffers. {LEGEND}."]
    return "\n".join(lines) + "\n"


def published_column(
    stream: str, measure: str, methods: Sequence[str], buffers: Sequence[int], tasks: int
) -> dict[str, str]:
    """Return published results of methods on a stream, by method: "85.01 / 88.91 / – (T)".

    Args:
      stream: its name, as `make_stream` takes it.
      measure: one of `MEASURES`.
      methods: those to look for; the others are left out.
      buffers: their sizes, one figure for each; a method without a buffer has one figure.
      tasks: number of the stream's. Figures whose reference names another number are left out.
    """
    kind = split_name(stream)
    by_method: dict[str, dict[int | None, Published]] = {}
    for row in best_sourced(
        find_published(system="continual", measure=measure, method=list(methods))
    ):
        of_tasks = re.search(r"\((\d+) tasks\)", row.reference)
        if of_tasks and int(of_tasks[1]) != tasks:
            continue
        if split_name(row.stream) == kind and (row.size is None or row.size in buffers):
            by_method.setdefault(row.method, {})[row.size] = row
    return {
        method: joined_figures([rows.get(size) for size in ([None] if None in rows else buffers)])
        for method, rows in by_method.items()
    }


def titled_table(outcomes: Sequence[Outcome], measure: str) -> str:
    """Return a measure's table in Markdown below its title."""
    title = measure_title(measure, any(outcome.cumulative for outcome in outcomes))
    return f"{title.capitalize()} (%)\n\n{markdown_table(outcomes, measure)}"


def csv_table(outcomes: Sequence[Outcome]) -> str:
    """Return a row per run and seed: method, stream, buffer, seed, and every measure as a
    fraction.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stream", "method", "buffer", "seed", "model", *MEASURES])
    for outcome in outcomes:
        for model in outcome.models:
            by_name = measures(outcome, model)
            for index in range(outcome.seeds[1]):
                values = [
                    f"{by_name[name][index]:.6f}" if name in by_name else "" for name in MEASURES
                ]
                seed = outcome.seeds[0] + index
                head = [outcome.stream, outcome.method, outcome.buffer or "", seed]
                writer.writerow([*head, model, *values])
    return text.getvalue()
