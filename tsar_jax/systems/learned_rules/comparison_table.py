"""The table of plasticity rules side by side, and the curves of their figures as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from tsar_jax.evaluation.published_results import LEGEND, find_published, joined_figures
from tsar_jax.systems.learned_rules.episode_curves import (
    Curve,
    Run,
    bootstrap,
    coefficient_columns,
    curve,
    layer_columns,
    lost_seeds,
    medians,
)

LAST = 50
"""Episodes at the end of a run that stand for what it reached."""
EARLY = ((10, 20), (90, 110))
"""Episodes from and to which the accuracy is tabulated too."""


def table_rows(rules: Mapping[str, Run]) -> list[list[str]]:
    """Return the table, its head first: what each rule reached, and how soon."""
    rows = [
        [
            *("rule", "seeds (lost)", "episodes", "accuracy (%)", "meta-loss"),
            *(f"at {first}–{last}" for first, last in EARLY),
            *("angle (°)", "published (%)", "coefficients"),
        ]
    ]
    for label, run in rules.items():
        episodes = run["accuracy"].shape[1]
        angles = [np.nanmean(run[c][:, -LAST:]) for c in hidden_angles(run)]
        rows.append(
            [
                *(label, with_lost(run), str(episodes)),
                interval(100 * run["accuracy"][:, -LAST:].mean(1), ".1f"),
                interval(np.nanmean(run["loss"][:, -LAST:], 1), ".2f"),
                *(early_accuracy(run["accuracy"], *window) for window in EARLY),
                f"{np.mean(angles):.1f}" if angles else "–",
                published_accuracy(label),
                coefficients(run),
            ]
        )
    return rows


def markdown(rows: Sequence[Sequence[str]], note: str) -> str:
    """Return a table, its head first, as a Markdown file with a note below it."""
    head, *others = rows
    lines = [head, ["---", *["---:"] * (len(head) - 2), "---"], *others]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{note}\n"


def explanation(rules: Mapping[str, Run], notes: Sequence[str]) -> str:
    """Return what the table's numbers are, and which rules were trained otherwise than published.

    notes: as of `unusual_settings`.
    """
    last = min(LAST, next(iter(rules.values()))["loss"].shape[1])
    early = " and ".join(f"{first}–{end}" for first, end in EARLY)
    return (
        f"Accuracy, meta-loss and the hidden layers' mean angle: of the last {last} episodes, "
        "medians over seeds that are not lost, with 98 % bootstrap intervals. "
        f"At {early}: accuracy (%) of those episodes. "
        "Coefficients: of the last episode, medians over seeds; from the first layer to the last "
        f"where each has its own. Published: {LEGEND}."
        + "".join(f" Otherwise than published: {note}." for note in notes)
    )


def interval(values: np.ndarray, form: str) -> str:
    """Return a median over seeds [seeds] with its bootstrap interval: 70.1 (68.9–71.3)."""
    median, low, high = (format(float(end), form) for end in bootstrap(values))
    return f"{median} ({low}–{high})" if len(values) > 1 else median


def early_accuracy(accuracy: np.ndarray, first: int, last: int) -> str:
    """Return the median over seeds, in percent, of the mean from one episode to another.

    A dash where there are fewer episodes. accuracy: [seeds, episodes], 0..1.
    """
    if accuracy.shape[1] < last:
        return "–"
    return f"{100 * medians(accuracy[:, first - 1 : last].mean(1)):.1f}"


def coefficients(run: Run) -> str:
    """Return the last coefficients, medians over seeds; by layer where each has its own."""
    return ", ".join(
        f"{term} {' '.join(f'{medians(run[column][:, -1]):.3g}' for column in of_layers)}"
        for term, of_layers in by_term(coefficient_columns(run)).items()
    )


def by_term(columns: Mapping[int, Mapping[str, str]]) -> dict[str, list[str]]:
    """Return columns by layer and term as a list over layers for each term."""
    terms = next(iter(columns.values()))
    return {term: [of_layer[term] for of_layer in columns.values()] for term in terms}


def with_lost(run: Run) -> str:
    """Return how many seeds a run has, and how many of them are lost, if any: "20 (1)"."""
    lost = lost_seeds(run)
    return f"{len(run['loss'])}" + (f" ({lost})" if lost else "")


def published_accuracy(label: str) -> str:
    """Return a rule's published accuracy on EMNIST with its source, or a dash where there is none.

    label: as of `labels`; the paper has none of a rule with settings of its own.
    """
    rows = find_published(system="learned_rules", stream="emnist", method=label, measure="accuracy")
    return joined_figures(rows) if rows else "–"


def hidden_angles(run: Run) -> list[str]:
    """Return the columns of the hidden layers' angles."""
    return [column for layer, column in layer_columns(run, "angle").items() if layer]


def curves_csv(rules: Mapping[str, Run], window: int) -> str:
    """Return what the figures draw: a row per episode and rule, three numbers for every column.

    Empty where a rule lacks a column. window: episodes in the moving average.
    """
    names = list(dict.fromkeys(column for run in rules.values() for column in run))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["episode", "rule", *(f"{n}_{part}" for n in names for part in Curve._fields)])
    for label, run in rules.items():
        curves = {name: curve(run, name, window) for name in run}
        absent = [""] * len(Curve._fields)
        for episode in range(run["loss"].shape[1]):
            values = [
                [f"{part[episode]:.6g}" for part in curves[name]] if name in curves else absent
                for name in names
            ]
            writer.writerow([episode + 1, label, *(value for three in values for value in three)])
    return text.getvalue()
