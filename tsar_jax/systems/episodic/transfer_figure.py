"""The figures of domain transfer: forgetting, images by regulation, and the initial bias."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tsar_jax.evaluation.spread import CONFIDENCE, FEWEST, PROPORTION, confidence_band
from tsar_jax.plots.bands import draw_line
from tsar_jax.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PALETTE,
    PLAIN,
    VERMILION,
    dot_look,
    new_figure,
    save_figure,
    styled,
)

WINDOW = 10
"""Neighbouring classes in a moving average: enough to smooth the line, few of 100 classes."""


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Return means of `window` neighbours on the last axis: [..., n] -> [..., n - window + 1]."""
    return np.lib.stride_tricks.sliding_window_view(values, window, axis=-1).mean(-1)


@styled()
def forgetting_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path, rows: str = "runs"
) -> list[Path]:
    """Draw accuracy on each class right after learning it and at the end of the stream.

    Means over rows, smoothed over neighbouring classes, in the confidence band of the tables.

    Args:
        curves: both accuracies [rows, classes] by condition; every condition is drawn.
        path: the figure's, without suffix.
        rows: the noun for the rows in the caption.

    Returns:
        The files that are written.
    """
    classes = next(iter(curves.values()))[0].shape[1]
    window = min(WINDOW, classes)
    x = np.arange(classes - window + 1) + (window + 1) / 2
    figure, axes = new_figure(width=6.4, height=4.4)
    looks = [condition_look(place) for place in range(len(curves))]
    for look, pair in zip(looks, curves.values(), strict=True):
        for values, line in zip(pair, ("--", "-"), strict=True):
            drawn = {**look, "linestyle": line, "markevery": max(1, len(x) // 10)}
            smooth = moving_average(values, window)
            draw_line(axes, x, smooth, confidence_band, PROPORTION, drawn, markersize=4)
    axes.axhline(1 / classes, color=GREY, linestyle=":")
    axes.set(
        xlabel=f"class, in the order of learning (mean of {window} neighbours)",
        ylabel="accuracy on the class",
        xlim=(0, classes),
        ylim=(0, 1.02),
    )
    axes.grid(axis="y")
    when = [
        Line2D([], [], color=BLACK, linestyle="--", label="right after the class"),
        Line2D([], [], color=BLACK, label="at the end"),
        Line2D([], [], color=GREY, linestyle=":", label="chance at the end"),
    ]
    figure.legend(handles=when, loc="outside upper center", ncols=3)
    names = [
        Line2D([], [], linewidth=4, label=name, **look)
        for name, look in zip(curves, looks, strict=True)
    ]
    figure.legend(handles=names, loc="outside lower center", ncols=min(3, len(names)))
    if any(len(soon) > 1 for soon, _ in curves.values()):
        caption = f"mean and {CONFIDENCE} over {rows}; of fewer than {FEWEST}, each"
        axes.set_title(caption, fontsize=9, color="0.35")
    return save_figure(figure, path)


def condition_look(place: int) -> dict[str, Any]:
    """Return the colour of a condition's two lines, and from the ninth condition on a marker."""
    look = dot_look(max(0, place - len(PALETTE)))
    return look if place >= len(PALETTE) else {"color": PALETTE[place]}


class Examples(NamedTuple):
    """Images of one class with their mean regulation, from the highest down.

    name: the class's.
    highest, lowest: images of the highest and the lowest mean regulation, uint8 [n, H, W (, 3)].
    highest_regulation, lowest_regulation: their mean regulation [n].
    """

    name: str
    highest: np.ndarray
    highest_regulation: np.ndarray
    lowest: np.ndarray
    lowest_regulation: np.ndarray


@styled()
def spikes_figure(regulation: np.ndarray, rows: Sequence[Examples], path: Path) -> list[Path]:
    """Draw a histogram of mean regulation, beside example images of some classes.

    Args:
        regulation: mean regulation of every image [classes, per_class].
        rows: the examples, a row for each class.
        path: the figure's, without suffix.

    Returns:
        The files that are written.
    """
    per_side = max(len(row.highest) for row in rows)
    gap = 0.4  # of an image's width: the empty column between the highest and the lowest
    widths = [1.0] * per_side + [gap] + [1.0] * per_side
    examples_width = 0.8 * (gap + 2 * per_side)  # inches, as are all sizes of figures
    size = (4.2 + examples_width, max(3.4, 0.7 + len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(4.2, examples_width))
    left, right = halves
    draw_histogram(left.subplots(), regulation.reshape(-1))
    cells = right.subplots(
        len(rows), len(widths), squeeze=False, gridspec_kw={"width_ratios": widths}
    )
    for axis in cells.flat:
        axis.set_axis_off()
    for line, row in zip(cells, rows, strict=True):
        draw_images(line[:per_side], row.highest, row.highest_regulation)
        draw_images(line[per_side + 1 :], row.lowest, row.lowest_regulation)
        line[per_side].text(
            *(0.5, 0.5, row.name.replace("/", "\n")),
            transform=line[per_side].transAxes,
            rotation=90,
            ha="center",
            va="center",
            fontsize=8,
        )
    middles = per_side // 2, -1 - per_side // 2
    for middle, title in zip(middles, ("highest of the class", "lowest"), strict=True):
        cells[0, middle].set_title(title)
    return save_figure(figure, path)


def draw_histogram(axes: Axes, values: np.ndarray) -> None:
    """Draw a histogram of images by mean regulation [N], with the mean and 99th percentile."""
    axes.hist(values, bins=50, color=BLUE)
    for place, colour, line, label in (
        (values.mean(), BLACK, "-", "mean"),
        (np.percentile(values, 99), VERMILION, "--", "99th percentile"),
    ):
        axes.axvline(place, color=colour, linestyle=line, label=f"{label}: {place:.2g}")
    axes.set(
        xlabel="mean regulation of the third convolution",
        ylabel="images",
        yscale="log",
        title=f"{values.size:,} images",
    )
    axes.yaxis.set_major_formatter(PLAIN)
    axes.figure.legend(loc="outside lower center", ncols=2)


def draw_images(line: Sequence[Axes], images: np.ndarray, values: np.ndarray) -> None:
    """Draw images [n, H, W (, 3)] with a value [n] under each."""
    for axes, image, value in zip(line, images, values, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color="#CCCCCC")
        axes.set_xlabel(f"{value:#.2g}", fontsize=7, labelpad=2)


@styled()
def bias_figure(
    accuracies: Mapping[float, tuple[Sequence[float], Sequence[float]]],
    open_shares: Mapping[float, float],
    threshold: float,
    classes: int,
    path: Path,
) -> list[Path]:
    """Draw accuracies of transfers, and how many gates are open, against the initial bias.

    Accuracies are means over runs in confidence bands.

    Args:
        accuracies: accuracies [runs] by initial bias, right after a class and at the end.
        open_shares: mean share of the third convolution's gates above the threshold before the
            transfer, by initial bias.
        threshold: gates above it count as open.
        classes: number of classes of a transfer.
        path: the figure's, without suffix.

    Returns:
        The files that are written.
    """
    figure, (left, right) = new_figure(1, 2, width=8.0, height=3.9)
    biases = sorted(accuracies)
    lines = (
        (0, ORANGE, "--", "right after the class"),
        (1, BLUE, "-", "at the end"),
    )
    runs = max(len(values) for pair in accuracies.values() for values in pair)
    for part, colour, line, label in lines:
        values = np.full((runs, len(biases)), np.nan)
        for column, bias in enumerate(biases):
            values[: len(accuracies[bias][part]), column] = accuracies[bias][part]
        look = {"color": colour, "linestyle": line}
        marks: dict[str, Any] = {"marker": "o", "label": label, "clip_on": False}
        draw_line(left, biases, values, confidence_band, PROPORTION, look, **marks)
    left.axhline(1 / classes, color=GREY, linestyle=":", label="chance at the end")
    left.set(ylabel="accuracy", ylim=(0, 1.02), title=f"{classes} classes of a new domain")
    figure.legend(loc="outside lower center", ncols=3, handlelength=3)
    right.plot(
        biases, [100 * open_shares[bias] for bias in biases], "o-", color=BLUE, clip_on=False
    )
    # Linear near zero, where no synapse may be open at all.
    right.set_yscale("symlog", linthresh=0.01)
    right.yaxis.set_major_formatter(PLAIN)
    right.set(
        ylabel=f"gates above {threshold:g} (%)",
        ylim=(0, 110),
        title="third convolution, meta-trained",
    )
    if runs > 1:
        bands = f"mean and {CONFIDENCE} over runs; of fewer than {FEWEST}, each"
        figure.suptitle(bands, fontsize=9, color="0.35")
    for axes in (left, right):
        axes.set_xlabel("initial bias of the regulator's heads")
        axes.grid(axis="y")
    return save_figure(figure, path)
