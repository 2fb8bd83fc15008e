"""The results of meta-tests as a file, as a table and in Markdown."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tsar_jax.errors import UserError
from tsar_jax.evaluation.published_results import LEGEND, Published, find_published
from tsar_jax.evaluation.spread import PROPORTION, confidence_band, spread_text
from tsar_jax.systems.episodic.meta_test import Result
from tsar_jax.untrusted.files import read_json

TRAINED, RANDOM, SCRATCH = "meta-trained", "random features", "from scratch"
"""Names of conditions: a run's network; an untrained one whose last layer learns; an untrained one
that learns whole."""

Conditions = Mapping[str, Sequence[Result]]
"""Results by condition, such as "meta-trained" or "random features"."""


def results_to_json(conditions: Conditions, settings: Mapping[str, Any]) -> str:
    """Return the results, with the settings that they were made with, as JSON."""
    rows = {name: [dataclasses.asdict(r) for r in rs] for name, rs in conditions.items()}
    return json.dumps({"settings": settings, "conditions": rows}, indent=1) + "\n"


def read_results(
    path: Path, script: str = "anml_meta_test"
) -> tuple[dict[str, list[Result]], dict[str, Any]]:
    """Return the conditions and the settings in a file that holds `results_to_json`.

    Args:
        script: name of the script that writes such files, for an error's sentence.

    Raises:
        UserError: the file is missing, or of another form.
    """
    try:
        stored = read_json(path)
        conditions = {
            str(name): [Result(**row) for row in rows]
            for name, rows in stored["conditions"].items()
        }
        return conditions, dict(stored["settings"])
    except FileNotFoundError:
        raise UserError(f"There is no {path}: run {script} on that run first.") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} does not hold results of {script} ({error}): run {script} again."
        ) from None


def pool_seeds(results: Sequence[Sequence[Result]]) -> list[Result]:
    """Return one condition's results on several seeds as one, each seed's mean counting as a run.

    Rows are matched by number of classes; the learning rate is the median over the seeds.

    Raises:
        UserError: the seeds were tested on different numbers of classes.
    """
    if len({tuple(row.classes for row in rows) for rows in results}) != 1:
        raise UserError(
            "The runs were meta-tested on different numbers of classes: "
            "repeat anml_meta_test with the same classes."
        )
    return [
        Result(
            rows[0].classes,
            float(np.median([row.rate for row in rows])),
            [float(np.mean(row.train)) for row in rows],
            [float(np.mean(row.test)) for row in rows],
            [values for row in rows for values in row.per_class],
        )
        for rows in zip(*results, strict=True)
    ]


def class_counts(conditions: Conditions) -> list[int]:
    """Return the numbers of classes that every condition was tested on.

    Raises:
        UserError: they differ between conditions.
    """
    counts = {tuple(row.classes for row in rows) for rows in conditions.values()}
    if len(counts) != 1:
        raise UserError(
            "The conditions were meta-tested on different numbers of classes: "
            "repeat anml_meta_test with the same classes."
        )
    return list(counts.pop())


MOST_COLUMNS = 4
"""Numbers of classes that a table has as columns; more of them are its rows."""


def table(conditions: Conditions, title: str) -> Any:
    """Return a rich table of test and train accuracy per condition and number of classes.

    ± is the 95 % confidence interval of the mean, as `percent` writes it.
    """
    from rich.table import Table

    result = Table(title=title)
    result.add_column("condition")
    counts = class_counts(conditions)
    if len(counts) > MOST_COLUMNS:
        _add_rows(result, conditions)
        return result
    for count in counts:
        result.add_column(f"test, {count} classes", justify="right")
    result.add_column("train", justify="right")
    result.add_column("learning rates", justify="right")
    for name, rows in conditions.items():
        result.add_row(
            name,
            *(percent(row.test) for row in rows),
            " ".join(f"{np.mean(row.train):.2f}" for row in rows),
            " ".join(f"{row.rate:g}" for row in rows),
        )
    return result


def _add_rows(result: Any, conditions: Conditions) -> None:
    """Add a row for each condition and number of classes to a rich table."""
    for column in ("classes", "test", "train", "learning rate"):
        result.add_column(column, justify="right")
    for name, rows in conditions.items():
        for row in rows:
            train = f"{np.mean(row.train):.3f}".lstrip("0")
            result.add_row(name, str(row.classes), percent(row.test), train, f"{row.rate:g}")


def percent(values: Sequence[float]) -> str:
    """Return accuracies [runs] with the 95 % confidence interval of their mean: `.612 ± .014`.

    `.031 (.000 to .096)` where 0 or 1 cuts the interval; of fewer than three runs their values.
    """
    return spread_text(
        values, confidence_band, PROPORTION, lambda value: f"{value:.3f}".lstrip("0")
    )


Series = Mapping[str, Mapping[int, Published]]
"""Published accuracies by label, such as "anml, replication 1 (P)", and number of classes."""


def published_series(models: Collection[str], measure: str) -> dict[str, dict[int, Published]]:
    """Return the published accuracies of models' meta-tests, a series for each model and reference.

    Args:
        models: as `AnmlConfig.model` names them.
        measure: accuracy, of held-out images, or train_accuracy.
    """
    series: dict[str, dict[int, Published]] = {}
    for row in find_published(system="anml", measure=measure, method=tuple(models)):
        if row.size is not None:
            label = f"{row.method}, {row.reference.partition(' (')[0]} ({row.mark})"
            series.setdefault(label, {})[row.size] = row
    return series


def markdown(conditions: Conditions, published: Series | None = None) -> str:
    """Return the table's test accuracies in Markdown.

    Args:
        conditions: the results that were measured.
        published: further rows of figures at the same numbers of classes. None: none.
    """
    counts = class_counts(conditions)
    lines = [
        "| condition | " + " | ".join(f"{count} classes" for count in counts) + " |",
        "|---|" + "---|" * len(counts),
    ]
    for name, rows in conditions.items():
        lines.append(f"| {name} | " + " | ".join(percent(row.test) for row in rows) + " |")
    published_rows = {
        label: [row[count].figure if count in row else "–" for count in counts]
        for label, row in (published or {}).items()
        if not row.keys().isdisjoint(counts)
    }
    lines += [
        f"| published: {label} | {' | '.join(cells)} |" for label, cells in published_rows.items()
    ]
    if published_rows:
        lines += ["", f"Published: full-size networks. {LEGEND}."]
    return "\n".join(lines) + "\n"
