"""Parts of the figures of learned plasticity rules: looks, legends, and what is drawn on axes."""

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
    Run,
    coefficient_columns,
    curve,
    lost_seeds,
    seed_count,
)

PUBLISHED_NAMES = {"pseudo_gradient": "pseudo-gradient", "ehebb": "eHebb", "oja": "Oja"}
DISTINCT = (*PUBLISHED_NAMES, *(term for term in POOL if term not in PUBLISHED_NAMES))
"""The pool's terms in the order in which they get a colour: those of F_bio first."""
COLOURS = tuple(colour for colour in PALETTE if colour != GREY)
"""Grey is left to what is no measurement."""
LINES = ("-", "--", "-.", ":")
SQUEEZED = 10
"""Ratio of the largest coefficient to the middle one above which the axis is logarithmic."""


def term_label(term: str) -> str:
    """Return a term as the paper writes its coefficient, with its name if it has one."""
    if term not in POOL:
        return wrapped(term, 18)
    number = POOL.index(term)
    name = "" if term == f"f{number}" else f" {PUBLISHED_NAMES.get(term, term)}"
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
    """Draw curves [episodes] by their place, times a scale, over the episodes from 1."""
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
    """Return the ends between which the medians lie, but for a few episodes, off the scale."""
    found = np.concatenate([band.median for band in curves.values()])
    low, high = np.nanpercentile(found[found > 0], [1, 98])
    return float(low), float(high)


def draw_learning(
    loss: Axes, accuracy: Axes, runs: Sequence[Run], chance: float | None, window: int
) -> None:
    """Draw meta-loss and accuracy in percent, each on its axes; chance: an accuracy of 0..1."""
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
    # From a little below 0, where backpropagation's line is; panels may share the axis.
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


def caption(runs: Sequence[Run], window: int = 1) -> str:
    """Return a line that says what lines and bands are, and of how many episodes a point is."""
    counts = {len(next(iter(run.values()))) for run in runs}
    lost, of_all = (sum(count(run) for run in runs) for count in (lost_seeds, seed_count))
    over = f"; means of {window} episodes" if window > 1 else ""
    if counts == {1}:
        return f"one seed{over}"
    number = f"{counts.pop()} " if len(counts) == 1 else ""
    said = f"; {lost} of {of_all} seeds lost" if lost else ""
    return f"median over {number}seeds in its 98 % bootstrap interval{over}{said}"


def grid(count: int) -> tuple[int, int]:
    """Return rows and columns for `count` panels and a legend."""
    columns = 2 if count == 3 else min(3, count + 1)
    return math.ceil((count + 1) / columns), columns


def grid_height(count: int) -> float:
    """Return the height in inches of a figure of `count` panels and a legend."""
    return 0.6 + 1.9 * grid(count)[0]


def cells_and_legend(
    figure: FigureBase, count: int, handles: Sequence[Line2D], ylabel: str, share: bool
) -> list[Axes]:
    """Return `count` panels, with the legend after the last; share: one vertical scale."""
    cells = figure.subplots(*grid(count), squeeze=False, sharey=share).ravel()
    for cell in cells[count:]:
        cell.set_axis_off()
    cells[count].legend(handles=handles, loc="center left", borderaxespad=0, labelspacing=0.3)
    figure.supxlabel("episode", fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    return list(cells[:count])


def write(figure: Figure, path: Path) -> list[Path]:
    """Write a figure with its panels in rounded places, and return the files.

    The last digits of what the layout's solver finds differ from time to time.
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
        term: DISTINCT.index(term) if term in POOL else len(POOL) + own.index(term)
        for term in terms
    }


def draw_coefficients(figure: FigureBase, run: Run) -> None:
    """Draw a run's coefficients in a figure or a part of one: one panel, or one for each layer."""
    columns = coefficient_columns(run)
    places = term_places(list(next(iter(columns.values()))))
    curves = {
        layer: {places[term]: curve(run, column) for term, column in of_layer.items()}
        for layer, of_layer in columns.items()
    }
    last = {
        t: sum(of_layer[p].median[-1] for of_layer in curves.values()) for t, p in places.items()
    }
    handles = [
        Line2D([], [], label=term_label(term), **look(places[term]))
        for term in sorted(places, key=lambda term: -last[term])
    ]
    if len(columns) == 1:
        panels = [figure.subplots()]
        panels[0].legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
        panels[0].set(xlabel="episode", ylabel="coefficient")
    else:
        panels = cells_and_legend(figure, len(columns), handles, "coefficient", True)
    for axes, (layer, of_layer) in zip(panels, curves.items(), strict=True):
        draw_curves(axes, of_layer)
        axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
        if layer:
            axes.set_title(f"layer {layer}", fontsize=10)
        scale_coefficients(axes, [band for each in curves.values() for band in each.values()])


def scale_coefficients(axes: Axes, curves: Sequence[Curve]) -> None:
    """Make the vertical axis linear near 0 alone, where a linear one squeezes most curves."""
    peaks = [np.nanmax(np.abs(band.median)) for band in curves]
    middle, top = np.median(peaks), max(peaks)
    if 0 < SQUEEZED * middle < top:
        axes.set_yscale("symlog", linthresh=10 ** math.floor(math.log10(middle)))
        axes.yaxis.set_major_formatter(PLAIN)
