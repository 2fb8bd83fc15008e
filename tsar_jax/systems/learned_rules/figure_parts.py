"""Parts of the figures of learned rules: looks, legends, panels, and curves on axes."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from tsar_jax.plasticity.rules import POOL
from tsar_jax.plots.style import GREY, PALETTE, PLAIN, save_figure
from tsar_jax.systems.learned_rules.episode_curves import (
    Curve,
    EpisodeColumns,
    coefficient_columns,
    curve,
    lost_seeds,
    seed_count,
)

TERM_NAMES = {"pseudo_gradient": "pseudo-gradient", "ehebb": "eHebb", "oja": "Oja"}
"""The paper's names of terms."""
TERM_ORDER = (*TERM_NAMES, *(term for term in POOL if term not in TERM_NAMES))
"""The pool's terms in the order in which they get a colour: those of F_bio first."""
COLOURS = tuple(colour for colour in PALETTE if colour != GREY)
"""Colours of measurements; grey is for chance and other guides."""
LINES = ("-", "--", "-.", ":")
"""Dashes of lines, which change once all colours are taken."""
SQUEEZED = 10
"""Ratio of the largest coefficient to the middle one above which the axis is logarithmic."""


def term_label(term: str) -> str:
    """Return a term as the paper writes its coefficient, with its name if it has one."""
    if term not in POOL:
        return wrapped(term, 18)
    number = POOL.index(term)
    name = "" if term == f"f{number}" else f" {TERM_NAMES.get(term, term)}"
    return rf"$\theta_{number}${name}"


def look(place: int) -> dict[str, Any]:
    """Return the colour and dashes of the line at a place; 28 lines are told apart."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": LINES[place // len(COLOURS) % len(LINES)],
    }


def entries(labels: Sequence[str]) -> list[Line2D]:
    """Return a legend's entries for lines at places 0, 1, ..., long labels in several lines."""
    return [
        Line2D([], [], label=wrapped(label), **look(place)) for place, label in enumerate(labels)
    ]


def wrapped(label: str, width: int = 22) -> str:
    """Return a user's label in lines that fit a legend, safe from being read as formulae."""
    return textwrap.fill(label, width).replace("$", r"\$")


def draw_curves(axes: Axes, curves: Mapping[int, Curve], scale: float = 1) -> None:
    """Draw curves over the episodes from 1.

    Args:
        curves: curves [episodes] by the place whose look they have.
        scale: factor of the values.
    """
    for place, (median, low, high) in curves.items():
        episodes = np.arange(1, len(median) + 1)
        marker = "." if len(median) == 1 else ""
        axes.plot(episodes, scale * median, marker=marker, linewidth=1.4, **look(place))
        axes.fill_between(
            episodes,
            scale * low,
            scale * high,
            color=look(place)["color"],
            alpha=min(0.2, 1 / len(curves)),
            linewidth=0,
        )
    axes.set_xlim(0, max(len(median) for median, _, _ in curves.values()))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y")


def usual_range(curves: Mapping[int, Curve]) -> tuple[float, float]:
    """Return the ends between which the medians lie, but for a few episodes far off.

    Positive values alone count.
    """
    values = np.concatenate([band.median for band in curves.values()])
    low, high = np.nanpercentile(values[values > 0], [1, 98])
    return float(low), float(high)


def draw_learning(
    loss: Axes, accuracy: Axes, runs: Sequence[EpisodeColumns], chance: float | None, window: int
) -> None:
    """Draw meta-loss and accuracy in percent, each on its axes.

    Args:
        runs: columns of every rule.
        chance: accuracy of a guess, in [0, 1]. None: it is not drawn.
        window: episodes in the moving average.
    """
    losses, accuracies = (
        {place: curve(run, column, window) for place, run in enumerate(runs)}
        for column in ("loss", "accuracy")
    )
    draw_curves(loss, losses)
    loss.set(ylabel="meta-loss")
    highest = 1.5 * usual_range(losses)[1]
    loss.set_ylim(0, min(highest, loss.get_ylim()[1]))
    draw_curves(accuracy, accuracies, 100)
    accuracy.set(ylabel="accuracy (%)", ylim=(0, 100))
    if chance is not None:
        accuracy.axhline(100 * chance, color=GREY, linestyle=":", linewidth=1.4)


def draw_angles(axes: Axes, curves: Mapping[int, Curve]) -> None:
    """Draw angles in degrees by place, and mark 90°, where errors agree by chance alone."""
    draw_curves(axes, curves)
    axes.axhline(90, color=GREY, linestyle=":", linewidth=1.4)
    # The axis begins a little below 0, where backpropagation's line is; panels may share the axis.
    widest = max(np.nanmax(band.high) for band in curves.values())
    axes.set_ylim(-4, max(94, 4 + widest, axes.get_ylim()[1]))
    axes.set_yticks(range(0, math.ceil(axes.get_ylim()[1]), 30))


def draw_orthonormality(axes: Axes, curves: Mapping[int, Curve]) -> None:
    """Draw orthonormality errors by place, on a logarithmic axis labelled at powers of ten."""
    draw_curves(axes, curves)
    axes.set_yscale("log")
    low, high = usual_range(curves)
    axes.set_ylim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_formatter(NullFormatter())


def caption(runs: Sequence[EpisodeColumns], window: int = 1) -> str:
    """Return a sentence on what lines and bands are, and on the moving average.

    Args:
        runs: columns of every rule.
        window: episodes in the moving average.
    """
    seed_counts = {seed_count(run) for run in runs}
    lost = sum(map(lost_seeds, runs))
    total = sum(map(seed_count, runs))
    average_text = f"; means of {window} episodes" if window > 1 else ""
    if seed_counts == {1}:
        return f"one seed{average_text}"
    number = f"{seed_counts.pop()} " if len(seed_counts) == 1 else ""
    lost_text = f"; {lost} of {total} seeds lost" if lost else ""
    return f"median over {number}seeds in its 98 % bootstrap interval{average_text}{lost_text}"


def grid(count: int) -> tuple[int, int]:
    """Return rows and columns for `count` panels and a legend."""
    columns = 2 if count == 3 else min(3, count + 1)
    return math.ceil((count + 1) / columns), columns


def grid_height(count: int) -> float:
    """Return the height in inches of a figure of `count` panels and a legend."""
    return 0.6 + 1.9 * grid(count)[0]


def cells_and_legend(
    figure: FigureBase, count: int, handles: Sequence[Line2D], ylabel: str, sharey: bool
) -> list[Axes]:
    """Return `count` panels, with the legend after the last.

    Args:
        handles: the legend's entries.
        sharey: whether the panels have one vertical scale.
    """
    cells = figure.subplots(*grid(count), squeeze=False, sharey=sharey).ravel()
    for cell in cells[count:]:
        cell.set_axis_off()
    cells[count].legend(handles=handles, loc="center left", borderaxespad=0, labelspacing=0.3)
    figure.supxlabel("episode", fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    return list(cells[:count])


def write(figure: Figure, path: Path) -> list[Path]:
    """Write a figure with its panels at rounded positions, and return the files.

    The last digits of positions from the layout's solver differ from time to time, and with them
    would the files.

    Args:
        path: the figure's, without suffix.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position().bounds, 6).tolist())
    return save_figure(figure, path)


def term_places(terms: Sequence[str]) -> dict[str, int]:
    """Return the place of each term's line: one of the pool looks the same in every figure."""
    own = [term for term in terms if term not in POOL]
    return {
        term: TERM_ORDER.index(term) if term in POOL else len(POOL) + own.index(term)
        for term in terms
    }


def draw_coefficients(figure: FigureBase, run: EpisodeColumns) -> None:
    """Draw a run's coefficients in a figure or a part of one, layer by layer if layers differ."""
    columns = coefficient_columns(run)
    places = term_places(list(next(iter(columns.values()))))
    curves = {
        layer: {places[term]: curve(run, column) for term, column in layer_columns.items()}
        for layer, layer_columns in columns.items()
    }
    last_sums = {
        term: sum(layer_curves[place].median[-1] for layer_curves in curves.values())
        for term, place in places.items()
    }
    handles = [
        Line2D([], [], label=term_label(term), **look(places[term]))
        for term in sorted(places, key=lambda term: -last_sums[term])
    ]
    if len(columns) == 1:
        panels = [figure.subplots()]
        panels[0].legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
        panels[0].set(xlabel="episode", ylabel="coefficient")
    else:
        panels = cells_and_legend(figure, len(columns), handles, "coefficient", True)
    every_curve = [band for layer_curves in curves.values() for band in layer_curves.values()]
    for axes, (layer, layer_curves) in zip(panels, curves.items(), strict=True):
        draw_curves(axes, layer_curves)
        axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
        if layer:
            axes.set_title(f"layer {layer}", fontsize=10)
        scale_coefficients(axes, every_curve)


def scale_coefficients(axes: Axes, curves: Sequence[Curve]) -> None:
    """Make the vertical axis logarithmic but near 0 where a linear one would squeeze curves."""
    peaks = [np.nanmax(np.abs(band.median)) for band in curves]
    middle, top = np.median(peaks), max(peaks)
    if 0 < SQUEEZED * middle < top:
        axes.set_yscale("symlog", linthresh=10 ** math.floor(math.log10(middle)))
        axes.yaxis.set_major_formatter(PLAIN)
