"""The figures of a classifier's representation: gates beside images, and bars."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tsar_jax.evaluation.published_results import LEGEND
from tsar_jax.plots import style
from tsar_jax.systems.episodic.analysis.representation import (
    NEAREST_NEIGHBOUR,
    PUBLISHED_CLASSES,
    SPARSITY,
    THRESHOLD,
)

Spaces = Mapping[str, np.ndarray]
Measures = Mapping[str, Mapping[str, float]]


def space_title(name: str, spaces: Sequence[str]) -> str:
    """A space's name as a reader sees it."""
    if name == "features" and "gate" in spaces:
        return "Features after gate"
    return name.capitalize()


def wrapped(title: str) -> str:
    """A title in lines that fit over a map or under a group of bars."""
    return textwrap.fill(title, 13, break_long_words=False)


def unit_map(units: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Units [F] in an order [F], as rows of a square of the next size; NaN where none is left."""
    side = math.ceil(math.sqrt(units.size))
    cells = np.full(side * math.ceil(units.size / side), np.nan)
    cells[: units.size] = units[order]
    return cells.reshape(-1, side)


def unit_orders(means: Spaces) -> dict[str, np.ndarray]:
    """The order in which each space's units are drawn, from their mean activations [F].

    By the mean gate, largest first, so that a gate and its feature share a place; without a
    gate, by the space's own.
    """
    return {
        name: np.argsort(-means.get("gate", mean), kind="stable") for name, mean in means.items()
    }


def colour_groups(spaces: Spaces) -> list[tuple[list[str], float]]:
    """Which spaces share a colour scale, and where it ends: gates at 1, features at what 99.5 %
    of their active units stay below."""

    def end(names: list[str]) -> float:
        units = np.concatenate([spaces[name].ravel() for name in names])
        active = units[units > THRESHOLD]
        return float(np.percentile(active, 99.5)) if active.size else 1.0

    if "gate" not in spaces:
        return [([name], end([name])) for name in spaces]
    others = [name for name in spaces if name != "gate"]
    return [(["gate"], 1.0), (others, end(others))]


@style.styled()
def gates_figure(images: np.ndarray, names: Sequence[str], spaces: Spaces, means: Spaces) -> Figure:
    """A row per image: the image, and a map of the units of each space.

    images uint8 [N, H, W]; names: of their classes, alphabet/character; spaces: [N, F] each;
    means: each unit's mean activation [F] over many images, which orders the units.
    """
    rows, columns = len(images), 1 + len(spaces)
    figure, axes = grid_of_cells(rows, columns)
    orders = unit_orders(means)
    place = {name: column for column, name in enumerate(spaces, 1)}
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        axes[row, 0].imshow(image, cmap="gray", vmin=0, vmax=255)
        axes[row, 0].set_ylabel(
            class_title(name), rotation=0, ha="right", va="center", multialignment="right"
        )
    for group, end in colour_groups(spaces):
        for space in group:
            for row, units in enumerate(spaces[space]):
                mappable = axes[row, place[space]].imshow(
                    unit_map(units, orders[space]), vmin=0, vmax=end, interpolation="none"
                )
                active = 100 * (units > THRESHOLD).mean()
                axes[row, place[space]].set_xlabel(f"{active:.0f} % active", fontsize=9)
        first, last = (axes[-1, place[group[at]]].get_position() for at in (0, -1))
        y, thickness = (inches / figure.get_figheight() for inches in (0.92, 0.12))
        under = figure.add_axes((first.x0, y, last.x1 - first.x0, thickness))
        if group == ["gate"]:
            look: dict[str, Any] = {"label": "Gate (0 closed, 1 open)", "ticks": [0, 0.5, 1]}
        else:
            look = {"label": "Activation", "extend": "max", "ticks": MaxNLocator(4)}
        bar = figure.colorbar(mappable, cax=under, orientation="horizontal", format="%g", **look)
        bar.outline.set_visible(False)
    for title, axis in zip(
        ["Image", *(space_title(s, list(spaces)) for s in spaces)], axes[0], strict=True
    ):
        axis.set_title(wrapped(title))
    for axis in axes.flat:
        bare(axis)
    for axis in axes[:, 0]:
        axis.spines[:].set(visible=True, color="#CCCCCC")
    by = "mean gate" if "gate" in spaces else "mean activation"
    figure.supxlabel(
        f"A square per unit, ordered by {by}, largest first.\nActive: above {THRESHOLD}.",
        y=0.12 / figure.get_figheight(),
        va="bottom",
        fontsize=9,
    )
    return figure


def grid_of_cells(rows: int, columns: int) -> tuple[Figure, Any]:
    """A figure with a grid of square axes, the same in inches however many there are."""
    cell, gap_x, gap_y, left, right, top, bottom = 1.6, 0.25, 0.38, 1.3, 0.3, 0.6, 1.42
    width = left + columns * (cell + gap_x) - gap_x + right
    height = bottom + rows * (cell + gap_y) - gap_y + top
    place = {"left": left / width, "right": 1 - right / width}
    place |= {"bottom": bottom / height, "top": 1 - top / height}
    place |= {"wspace": gap_x / cell, "hspace": gap_y / cell}
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=place)


def class_title(name: str) -> str:
    """alphabet/character, as a short label of a few lines."""
    alphabet, _, character = name.replace("_", " ").partition("/")
    number = character.removeprefix("character").lstrip("0")
    return "\n".join([*textwrap.wrap(alphabet, 12), number])


def bare(axis: Axes) -> None:
    """No ticks, no frame."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


SERIES = {
    ("this run", "trained"): ("Trained, this run", style.BLUE, ""),
    ("published", "trained"): ("Trained, published", style.SKY, "//"),
    ("this run", "untrained"): ("Untrained, this run", style.VERMILION, ""),
    ("published", "untrained"): ("Untrained, published", style.ORANGE, "//"),
}


@style.styled()
def spaces_figure(
    measured: Mapping[str, Measures],
    published: Mapping[str, Measures],
    classes: int,
    marks: str,
) -> Figure:
    """Sparsity and nearest-neighbour accuracy of each space, beside the published values.

    measured, published: "trained" or "untrained" -> space -> measure -> share; what was not
    published is left out. classes: over how many the accuracy is. marks: the kinds of source of
    what was published, as `published_marks` gives them.
    """
    figure, panels = style.new_figure(1, 2, width=9, height=4.0)
    sources = {"this run": measured, "published": published}
    for axis, measure, label in (
        (panels[0], SPARSITY, f"Active units (above {THRESHOLD}, %)"),
        (panels[1], NEAREST_NEIGHBOUR, "5-nearest-neighbour accuracy (%)"),
    ):
        series = {
            key: {
                space: 100 * values[measure]
                for space, values in sources[key[0]].get(key[1], {}).items()
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
    where = {"this run": classes, "published": PUBLISHED_CLASSES}
    marked = {"this run": "", "published": f"; {marks}"}
    kinds = {label: label.split(", ")[1] for label in handles}
    labels = [f"{label} ({where[k]} unseen classes{marked[k]})" for label, k in kinds.items()]
    if "published" in kinds.values():
        figure.suptitle(LEGEND, fontsize=9, color="0.35")
    figure.legend([*handles.values()], labels, loc="outside lower center", ncols=2)
    return figure


def draw_bars(
    axis: Axes, series: Mapping[tuple[str, str], Mapping[str, float]], spaces: list[str]
) -> None:
    """Bars in %, grouped by space; a space's bars stand side by side around its place."""
    width = 0.2
    for index, space in enumerate(spaces):
        present = [key for key in SERIES if space in series[key]]
        for number, key in enumerate(present):
            label, colour, hatch = SERIES[key]
            bar = axis.bar(
                index + (number - (len(present) - 1) / 2) * width,
                series[key][space],
                0.94 * width,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=label,
            )
            axis.bar_label(bar, fmt="%.0f" if series[key][space] >= 10 else "%.1f", fontsize=8)
    titles = [wrapped(space_title(space, spaces)) for space in spaces]
    axis.set_xticks(range(len(spaces)), titles)
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(-0.5, len(spaces) - 0.5)
    axis.set_ylim(0, 108)
    axis.set_yticks(range(0, 101, 20))
    axis.grid(axis="y")
