"""Forgetting curves: how well each class is recognised when just learned, and at the end."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tsar_jax.analysis.style import GREY, PALETTE, save_figure, styled

WINDOW = 10


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Means of `window` neighbours: [n] -> [n - window + 1]."""
    return np.convolve(values, np.ones(window) / window, mode="valid")


def forgetting_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path
) -> list[Path]:
    """By condition, accuracies [runs, classes] right after learning and at the end of the stream.

    Means over runs, smoothed over neighbouring classes. path: without suffix. Returns the files.
    """
    with styled():
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axes = figure.subplots()
        for (name, (soon, end)), colour in zip(curves.items(), PALETTE, strict=False):
            classes = soon.shape[1]
            window = min(WINDOW, classes)
            place = np.arange(classes - window + 1) + (window + 1) / 2
            axes.plot(
                place,
                moving_average(soon.mean(0), window),
                color=colour,
                linestyle="--",
                label=f"{name}, right after",
            )
            axes.plot(
                place,
                moving_average(end.mean(0), window),
                color=colour,
                label=f"{name}, at the end",
            )
        axes.axhline(1 / classes, color=GREY, linestyle=":", label="chance at the end")
        axes.set(
            xlabel=f"class, in the order of learning (mean of {window} neighbours)",
            ylabel="accuracy on the class",
            ylim=(0, 1.02),
        )
        axes.set_xlim(0, classes)
        axes.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=2)
        return save_figure(figure, path)
