"""The table of learned rules side by side, and the curves of their figures as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from tsar_jax.evaluation.published_results import LEGEND, find_published, joined_figures
from tsar_jax.systems.learned_rules.episode_curves import (
    Curve,
    EpisodeColumns,
    bootstrap,
    coefficient_columns,
    curve,
    layer_columns,
    lost_seeds,
    medians,
)

LAST = 50
"""Number of episodes at a run's end over which its results are averaged."""
EARLY = ((10, 20), (90, 110))
"""First and last of the early episodes over which the accuracy is averaged too."""


def table_rows(rules: Mapping[str, EpisodeColumns]) -> list[list[str]]:
    """Return the rows of the table, its head first, with each rule's last and early results."""
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


def explanation(rules: Mapping[str, EpisodeColumns], notes: Sequence[str]) -> str:
    """Return a note on the table's numbers, and on rules trained otherwise than published.

    Args:
        rules: columns of every rule by its name.
        notes: as `unusual_settings` gives them.
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
    median, low, high = (format(float(number), form) for number in bootstrap(values))
    return f"{median} ({low}–{high})" if len(values) > 1 else median


def early_accuracy(accuracy: np.ndarray, first: int, last: int) -> str:
    """Return the median over seeds, in percent, of the mean from one episode to another.

    It is a dash where there are fewer episodes.

    Args:
        accuracy: [seeds, episodes], in [0, 1].
        first, last: first and last episode, counted from 1.
    """
    if accuracy.shape[1] < last:
        return "–"
    return f"{100 * medians(accuracy[:, first - 1 : last].mean(1)):.1f}"


def coefficients(run: EpisodeColumns) -> str:
    """Return the last coefficients, medians over seeds, layer by layer where each has its own."""
    return ", ".join(
        f"{term} {' '.join(f'{medians(run[column][:, -1]):.3g}' for column in term_columns)}"
        for term, term_columns in by_term(coefficient_columns(run)).items()
    )


def by_term(columns: Mapping[int, Mapping[str, str]]) -> dict[str, list[str]]:
    """Return columns by layer and term as a list over layers for each term."""
    terms = next(iter(columns.values()))
    return {term: [by_name[term] for by_name in columns.values()] for term in terms}


def with_lost(run: EpisodeColumns) -> str:
    """Return the number of a run's seeds, with that of lost ones if there are any: "20 (1)"."""
    lost = lost_seeds(run)
    return f"{len(run['loss'])}" + (f" ({lost})" if lost else "")


def published_accuracy(label: str) -> str:
    """Return a rule's published accuracy on EMNIST with its source, or a dash where there is none.

    Args:
        label: as `labels` gives it; a rule with settings of its own has no published accuracy.
    """
    rows = find_published(system="learned_rules", stream="emnist", method=label, measure="accuracy")
    return joined_figures(rows) if rows else "–"


def hidden_angles(run: EpisodeColumns) -> list[str]:
    """Return the names of the columns of the hidden layers' angles."""
    return [column for layer, column in layer_columns(run, "angle").items() if layer]


def curves_csv(rules: Mapping[str, EpisodeColumns], window: int) -> str:
    """Return the figures' curves as CSV: a row for each episode and rule.

    Every column has three numbers, which are empty where a rule lacks the column.

    Args:
        rules: columns of every rule by its name.
        window: episodes in the moving average.
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
            writer.writerow([episode + 1, label, *(value for triple in values for value in triple)])
    return text.getvalue()
