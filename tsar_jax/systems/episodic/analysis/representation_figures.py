"""The figures of a classifier's representations: gates beside images, and bars."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from tsar_jax.evaluation.published_results import LEGEND
from tsar_jax.plots import style
from tsar_jax.systems.episodic.analysis.representation import (
    NEAREST_NEIGHBOUR,
    PUBLISHED_CLASSES,
    SPARSITY,
    THRESHOLD,
)

Representations = Mapping[str, np.ndarray]
"""Arrays of units by the representation's name."""
Measures = Mapping[str, Mapping[str, float]]
"""Representation -> measure -> share, in [0, 1]."""

COLOURED = 99.5
"""Percentile of active units at which a colour scale ends: a few are many times as large."""


def representation_title(name: str, names: Sequence[str]) -> str:
    """Return a representation's name as the figures write it, among names of all of a network."""
    if name == "features" and "gate" in names:
        return "Features after gate"
    return name.capitalize()


def wrapped(title: str) -> str:
    """Return a title in lines that fit over a map or under a group of bars."""
    return textwrap.fill(title, 13, break_long_words=False)


def unit_map(units: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return units [F] in an order [F] as rows of the smallest square; NaN fills the last row."""
    side = math.ceil(math.sqrt(units.size))
    cells = np.full(side * math.ceil(units.size / side), np.nan)
    cells[: units.size] = units[order]
    return cells.reshape(-1, side)


def unit_orders(means: Representations) -> dict[str, np.ndarray]:
    """Return the order [F] in which each representation's units are drawn.

    It is that of the mean gate, largest first, so that a gate and its feature share a place;
    without a gate, that of the representation itself.

    Args:
        means: mean activations of each representation [F].
    """
    return {
        name: np.argsort(-means.get("gate", mean), kind="stable") for name, mean in means.items()
    }


def colour_groups(units: Representations) -> list[tuple[list[str], float]]:
    """Return which representations share a colour scale, and where it ends.

    The scale of gates ends at 1, that of features where COLOURED % of their active units do.
    """

    def end(names: list[str]) -> float:
        values = np.concatenate([units[name].ravel() for name in names])
        active = values[values > THRESHOLD]
        return float(np.percentile(active, COLOURED)) if active.size else 1.0

    if "gate" not in units:
        return [([name], end([name])) for name in units]
    others = [name for name in units if name != "gate"]
    return [(["gate"], 1.0), (others, end(others))]


@style.styled()
def gates_figure(
    images: np.ndarray, names: Sequence[str], units: Representations, means: Representations
) -> Figure:
    """Draw a row for each image: the image, and a map of the units of each representation.

    Args:
        images: uint8 [N, H, W].
        names: names of their classes, alphabet/character.
        units: activations of each representation's units [N, F].
        means: mean activation of each unit [F] over many images, which orders the units.
    """
    figure, axes = grid_of_cells(len(images), 1 + len(units))
    orders = unit_orders(means)
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        axes[row, 0].imshow(image, cmap="gray", vmin=0, vmax=255)
        axes[row, 0].set_ylabel(
            class_title(name), rotation=0, ha="right", va="center", multialignment="right"
        )
    columns = {name: axes[:, column] for column, name in enumerate(units, 1)}
    for group, end in colour_groups(units):
        for name in group:
            mappable = draw_units(columns[name], units[name], orders[name], end)
        add_colour_bar(figure, mappable, columns[group[0]][-1], columns[group[-1]][-1], group)
    titles = ["Image", *(representation_title(name, list(units)) for name in units)]
    for title, axis in zip(titles, axes[0], strict=True):
        axis.set_title(wrapped(title))
    for axis in axes.flat:
        bare(axis)
    for axis in axes[:, 0]:
        axis.spines[:].set(visible=True, color="#CCCCCC")
    by = "mean gate" if "gate" in units else "mean activation"
    figure.supxlabel(
        f"A square per unit, ordered by {by}, largest first.\nActive: above {THRESHOLD}.",
        y=0.12 / figure.get_figheight(),
        va="bottom",
        fontsize=9,
    )
    return figure


def draw_units(
    column: np.ndarray, activations: np.ndarray, order: np.ndarray, end: float
) -> AxesImage:
    """Draw a map of one representation's units for each image, in a column of axes.

    Args:
        column: the axes [N].
        activations: activations of the units [N, F].
        order: order of the units [F].
        end: activation at which the colour scale ends.

    Returns:
        One of the maps, for a colour bar.
    """
    for axis, units in zip(column, activations, strict=True):
        mappable = axis.imshow(unit_map(units, order), vmin=0, vmax=end, interpolation="none")
        active = 100 * (units > THRESHOLD).mean()
        axis.set_xlabel(f"{active:.0f} % active", fontsize=9)
    return mappable


def add_colour_bar(
    figure: Figure, mappable: AxesImage, first: Axes, last: Axes, group: list[str]
) -> None:
    """Add a colour bar below the columns of a group of representations, from first to last."""
    left, right = first.get_position(), last.get_position()
    y, thickness = (inches / figure.get_figheight() for inches in (0.92, 0.12))
    below = figure.add_axes((left.x0, y, right.x1 - left.x0, thickness))
    if group == ["gate"]:
        look: dict[str, Any] = {"label": "Gate (0 closed, 1 open)", "ticks": [0, 0.5, 1]}
    else:
        look = {"label": "Activation", "extend": "max", "ticks": MaxNLocator(4)}
    bar = figure.colorbar(mappable, cax=below, orientation="horizontal", format="%g", **look)
    bar.outline.set_visible(False)


def grid_of_cells(rows: int, columns: int) -> tuple[Figure, Any]:
    """Return a figure with a grid of square axes, of the same inches however many there are."""
    cell, gap_x, gap_y, left, right, top, bottom = 1.6, 0.25, 0.38, 1.3, 0.3, 0.6, 1.42
    width = left + columns * (cell + gap_x) - gap_x + right
    height = bottom + rows * (cell + gap_y) - gap_y + top
    place = {"left": left / width, "right": 1 - right / width}
    place |= {"bottom": bottom / height, "top": 1 - top / height}
    place |= {"wspace": gap_x / cell, "hspace": gap_y / cell}
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=place)


def class_title(name: str) -> str:
    """Return a class's name, alphabet/character, as a short label of a few lines."""
    alphabet, _, character = name.replace("_", " ").partition("/")
    number = character.removeprefix("character").lstrip("0")
    return "\n".join([*textwrap.wrap(alphabet, 12), number])


def bare(axis: Axes) -> None:
    """Remove ticks and frame."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


SERIES = {  # (source, state of training) -> (label, colour, hatch)
    ("this run", "trained"): ("Trained, this run", style.BLUE, ""),
    ("published", "trained"): ("Trained, published", style.SKY, "//"),
    ("this run", "untrained"): ("Untrained, this run", style.VERMILION, ""),
    ("published", "untrained"): ("Untrained, published", style.ORANGE, "//"),
}


@style.styled()
def representations_figure(
    measured: Mapping[str, Measures],
    published: Mapping[str, Measures],
    classes: int,
    marks: str,
) -> Figure:
    """Draw sparsity and nearest-neighbour accuracy of each representation beside published values.

    Args:
        measured, published: measures of the network "trained" and "untrained"; measures that were
            not published are left out.
        classes: number of classes that the accuracy is over.
        marks: kinds of source of the published values, as `published_marks` gives them.
    """
    figure, panels = style.new_figure(1, 2, width=9, height=4.0)
    sources = {"this run": measured, "published": published}
    for axis, measure, label in (
        (panels[0], SPARSITY, f"Active units (above {THRESHOLD}, %)"),
        (panels[1], NEAREST_NEIGHBOUR, "5-nearest-neighbour accuracy (%)"),
    ):
        series = {
            key: {
                name: 100 * values[measure]
                for name, values in sources[key[0]].get(key[1], {}).items()
                if measure in values
            }
            for key in SERIES
        }
        draw_bars(axis, series, list(measured["trained"]))
        axis.set_ylabel(label)
    panels[0].set_title("Sparsity")
    panels[1].set_title("Nearest neighbours")
    handles: dict[str, Artist] = {}
    for axis in panels:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    class_counts = {"this run": classes, "published": PUBLISHED_CLASSES}
    endings = {"this run": "", "published": f"; {marks}"}
    origins = {label: label.split(", ")[1] for label in handles}
    labels = [
        f"{label} ({class_counts[origin]} unseen classes{endings[origin]})"
        for label, origin in origins.items()
    ]
    if "published" in origins.values():
        figure.suptitle(LEGEND, fontsize=9, color="0.35")
    figure.legend([*handles.values()], labels, loc="outside lower center", ncols=2)
    return figure


def draw_bars(
    axis: Axes, series: Mapping[tuple[str, str], Mapping[str, float]], names: list[str]
) -> None:
    """Draw bars in %, those of one representation side by side around its place.

    Args:
        series: value of each representation, by the keys of SERIES.
        names: the representations, from left to right.
    """
    width = 0.2  # four bars leave a fifth of each place empty
    for index, name in enumerate(names):
        present = [key for key in SERIES if name in series[key]]
        for number, key in enumerate(present):
            label, colour, hatch = SERIES[key]
            bar = axis.bar(
                index + (number - (len(present) - 1) / 2) * width,
                series[key][name],
                0.94 * width,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=label,
            )
            axis.bar_label(bar, fmt="%.0f" if series[key][name] >= 10 else "%.1f", fontsize=8)
    titles = [wrapped(representation_title(name, names)) for name in names]
    axis.set_xticks(range(len(names)), titles)
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.set_ylim(0, 108)
    axis.set_yticks(range(0, 101, 20))
    axis.grid(axis="y")
