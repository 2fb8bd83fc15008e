"""Meta-test figures: accuracy against number of classes, and over meta-training."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tsar_jax.analysis.style import GREY, PALETTE, save_figure, styled
from tsar_jax.evaluation.protocol import mean_and_band
from tsar_jax.evaluation.published_results import LEGEND
from tsar_jax.evaluation.results import Conditions, class_counts, published_series

MEASURES = {"test": "accuracy", "train": "train_accuracy"}


def meta_test_figure(
    conditions: Conditions, path: Path, band: str, published: Collection[str] = ()
) -> list[Path]:
    """Test and train accuracy against number of classes: mean, 95 % band, and chance.

    path: without suffix. band: what the band is taken over, such as "10 runs". published: models
    whose published accuracies are drawn too, at the same numbers of classes. Returns the files.
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
        caption = f"Mean and 95 % confidence band over {band}"
        if drawn:
            caption += f"\npublished: full-size networks; {LEGEND}"
        figure.suptitle(caption, fontsize=9, color="0.35")
        return save_figure(figure, path)


def _lines(axes: Any, conditions: Conditions, part: str, counts: Sequence[int]) -> None:
    for (name, rows), colour in zip(conditions.items(), PALETTE, strict=False):
        pairs = np.array([mean_and_band(getattr(row, part)) for row in rows])
        _line_with_band(axes, counts, pairs, colour, name)
    axes.plot(counts, [1 / c for c in counts], color=GREY, linestyle=":", label="chance")
    axes.set_xlabel("classes learned one after another")
    axes.set_xlim(left=0)


def _published_lines(axes: Any, models: Collection[str], part: str, counts: Sequence[int]) -> None:
    """Draw the models' published accuracies at some of the numbers of classes."""
    markers = dict(zip(published_series(models, MEASURES["test"]), "xv^s+*", strict=False))
    for label, row in published_series(models, MEASURES[part]).items():
        values = {n: row[n].value for n in counts if n in row}
        found = {n: float(value) for n, value in values.items() if value is not None}
        if len(found) > 1:
            axes.plot(
                *zip(*found.items(), strict=True),
                color=GREY,
                linestyle="--",
                marker=markers.get(label, "o"),
                markersize=4.5,
                linewidth=1,
                label=f"published: {label}",
            )


def _bars(axes: Any, conditions: Conditions, part: str, counts: Sequence[int]) -> None:
    """One number of classes makes no line."""
    for place, ((name, rows), colour) in enumerate(zip(conditions.items(), PALETTE, strict=False)):
        mean, width = mean_and_band(getattr(rows[0], part))
        error = min(width, mean), min(width, 1 - mean)
        axes.bar(place, mean, color=colour, label=name)
        axes.errorbar(place, mean, yerr=np.array(error)[:, None], color="black", capsize=3)
    axes.axhline(1 / counts[0], color=GREY, linestyle=":", label="chance")
    axes.set_xticks([])
    axes.set_xlabel(f"{counts[0]} classes learned one after another")


def learning_figure(
    curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]],
    path: Path,
) -> list[Path]:
    """Meta-test accuracy over meta-training: per model, its seeds' curves of (step, accuracy).

    path: without suffix. Returns the files.
    """
    with styled():
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        for (name, seeds), colour in zip(curves.items(), PALETTE, strict=False):
            steps = [step for step, _ in seeds[0]]
            pairs = np.array([mean_and_band(v) for v in zip(*_values(seeds), strict=True)])
            _line_with_band(axes, steps, pairs, colour, name)
        axes.set(
            xlabel="meta-training steps",
            ylabel="test accuracy, unseen classes",
            ylim=(0, 1.02),
        )
        axes.set_xlim(left=0)
        axes.grid(axis="y")
        axes.legend(loc="lower right")
        return save_figure(figure, path)


def _values(seeds: Sequence[Sequence[tuple[int, float]]]) -> list[list[float]]:
    return [[value for _, value in seed] for seed in seeds]


def _line_with_band(
    axes: Any, x: Sequence[float], pairs: np.ndarray, colour: str, name: str
) -> None:
    mean, width = pairs[:, 0], pairs[:, 1]
    axes.plot(x, mean, marker="o", markersize=3.5, color=colour, label=name)
    axes.fill_between(x, mean - width, mean + width, color=colour, alpha=0.2, linewidth=0)
