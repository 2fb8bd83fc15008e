"""The figures of meta-tests: accuracy against number of classes, and over meta-training."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tsar_jax.evaluation.published_results import LEGEND
from tsar_jax.evaluation.spread import CONFIDENCE, FEWEST, PROPORTION, confidence_band
from tsar_jax.plots.bands import draw_bars, draw_line
from tsar_jax.plots.style import GREY, PALETTE, bar_look, dot_look, look, save_figure, styled
from tsar_jax.systems.episodic.meta_test_results import Conditions, class_counts, published_series

MEASURES = {"test": "accuracy", "train": "train_accuracy"}
"""Published measures by the part of the images that is scored."""


def meta_test_figure(
    conditions: Conditions, path: Path, band: str, published: Collection[str] = ()
) -> list[Path]:
    """Draw test and train accuracy against number of classes: mean, confidence band, and chance.

    Bands are those of the tables (`confidence_band`).

    Args:
        conditions: the results that were measured; every condition is drawn.
        path: the figure's, without suffix.
        band: what the band is taken over, such as "10 runs".
        published: models whose published accuracies are drawn too, at the same numbers of classes.

    Returns:
        The files that are written.
    """
    counts = class_counts(conditions)
    draw = _lines if len(counts) > 1 else _bars
    with styled():
        figure = Figure(figsize=(7.2, 4.4 if published else 3.6), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        titles = {"test": "held-out images (test)", "train": "learned images (train)"}
        for axes, (part, title) in zip(panels, titles.items(), strict=True):
            draw(axes, conditions, part, counts)
            _published_lines(axes, published, part, counts)
            axes.set(title=title, ylim=(0, 1.02))
            axes.grid(axis="y")
        panels[0].set_ylabel("accuracy")
        handles, labels = panels[0].get_legend_handles_labels()
        drawn = any(label.startswith("published") for label in labels)
        figure.legend(handles, labels, loc="outside lower center", ncols=2 if drawn else 3)
        caption = f"Mean and {CONFIDENCE} over {band}; of fewer than {FEWEST}, each"
        if drawn:
            caption += f"\npublished: full-size networks; {LEGEND}"
        figure.suptitle(caption, fontsize=9, color="0.35")
        return save_figure(figure, path)


def _lines(axes: Any, conditions: Conditions, part: str, counts: Sequence[int]) -> None:
    """Draw a line for each condition, and chance, against the number of classes."""
    for place, (name, rows) in enumerate(conditions.items()):
        _line_with_band(axes, counts, [getattr(row, part) for row in rows], place, name)
    axes.plot(counts, [1 / c for c in counts], color=GREY, linestyle=":", label="chance")
    axes.set_xlabel("classes learned one after another")
    axes.set_xlim(left=0)


def _published_lines(axes: Any, models: Collection[str], part: str, counts: Sequence[int]) -> None:
    """Draw the models' published accuracies at some of the numbers of classes."""
    places = {
        label: place for place, label in enumerate(published_series(models, MEASURES["test"]))
    }
    for label, row in published_series(models, MEASURES[part]).items():
        place = places.setdefault(label, len(places))
        values = {n: row[n].value for n in counts if n in row}
        points = {n: float(value) for n, value in values.items() if value is not None}
        if len(points) > 1:
            axes.plot(
                *zip(*points.items(), strict=True),
                color=GREY,
                linestyle="--",
                marker=dot_look(len(PALETTE) * (1 + place))["marker"],
                markersize=4.5,
                linewidth=1,
                label=f"published: {label}",
            )


def _bars(axes: Any, conditions: Conditions, part: str, counts: Sequence[int]) -> None:
    """Draw a bar for each condition, since one number of classes makes no line."""
    for place, (name, rows) in enumerate(conditions.items()):
        runs = [np.asarray(getattr(rows[0], part))]
        look_of_bar = {**bar_look(place), "label": name}
        draw_bars(axes, [place], runs, 0.8, confidence_band, PROPORTION, **look_of_bar)
    axes.axhline(1 / counts[0], color=GREY, linestyle=":", label="chance")
    axes.set_xticks([])
    axes.set_xlabel(f"{counts[0]} classes learned one after another")


def learning_figure(
    curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]],
    path: Path,
) -> list[Path]:
    """Draw meta-test accuracy over meta-training, bands as in `meta_test_figure`.

    Args:
        curves: curves of (step, accuracy), one for each seed of each model; one may end before
            another.
        path: the figure's, without suffix.

    Returns:
        The files that are written.
    """
    with styled():
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        for place, (name, seeds) in enumerate(curves.items()):
            steps = sorted({step for seed in seeds for step, _ in seed})
            values = [[dict(seed).get(step, np.nan) for seed in seeds] for step in steps]
            _line_with_band(axes, steps, values, place, name)
        axes.set(
            xlabel="meta-training steps",
            ylabel="test accuracy, unseen classes",
            ylim=(0, 1.02),
        )
        axes.set_xlim(left=0)
        axes.grid(axis="y")
        axes.legend(loc="lower right")
        figure.suptitle(
            f"mean and {CONFIDENCE} over seeds; of fewer than {FEWEST}, each",
            fontsize=9,
            color="0.35",
        )
        return save_figure(figure, path)


def _line_with_band(
    axes: Any, x: Sequence[float], values: Sequence[Sequence[float]], place: int, name: str
) -> None:
    """Draw the mean over runs in its band, looking as the line at a place does.

    Args:
        values: the runs' values at each x, [x][runs]; fewer runs at some.
    """
    runs = np.full((max(map(len, values)), len(x)), np.nan)
    for column, run_values in enumerate(values):
        runs[: len(run_values), column] = run_values
    marks: dict[str, Any] = {"marker": "o", "markersize": 3.5, "label": name}
    draw_line(axes, x, runs, confidence_band, PROPORTION, look(place), **marks)
