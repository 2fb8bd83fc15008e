"""The figures of learned plasticity rules: loss and accuracy, coefficients, alignment.

A run is what `read_episodes` gives: columns [seeds, episodes] by name. Drawn are medians over seeds
in 98 % bootstrap intervals; in Shervani-Tabar and Rosenbaum (2023), arXiv 2210.16414, means.
"""

import math
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from tsar_jax.plasticity.rules import POOL
from tsar_jax.plots.style import GREY, PALETTE, PLAIN, new_figure, save_figure, styled

Run = Mapping[str, np.ndarray]
"""Columns of RUN/episodes.csv, each [seeds, episodes]."""

WINDOW = 10
"""Episodes in a moving average, as published."""
RESAMPLES = 500
INTERVAL = (1, 99)
"""Percentiles between which 98 % lie."""

THETA = re.compile(r"(?:layer_(\d+)_)?theta_(.+)")
PUBLISHED_NAMES = {"pseudo_gradient": "pseudo-gradient", "ehebb": "eHebb", "oja": "Oja"}
DISTINCT = (*PUBLISHED_NAMES, *(term for term in POOL if term not in PUBLISHED_NAMES))
"""The pool's terms in the order in which they get a colour: those of F_bio first."""
COLOURS = tuple(colour for colour in PALETTE if colour != GREY)
"""Grey is left to what is no measurement."""
LINES = ("-", "--", "-.", ":")
SQUEEZED = 10
"""A symmetric logarithmic axis where half of the coefficients are this much below the largest."""


class Curve(NamedTuple):
    """A median over seeds and the ends of its 98 % interval, of equal shapes."""

    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bootstrap(values: np.ndarray, seed: int = 0) -> Curve:
    """Return the median over seeds and its percentile bootstrap interval.

    One lost seed moves a median little, where it throws a mean off the axis. A value that is not
    finite is left out; `lost_seeds` counts the seeds that have one.

    Args:
        values: [seeds, ...].
        seed: of the generator of 500 resamples of the seeds, the same for every other index.

    Returns:
        Median and ends, each [...]; NaN where every seed is lost.
    """
    seeds = len(values)
    drawn = np.random.default_rng(seed).integers(seeds, size=(RESAMPLES, seeds))
    known = np.where(np.isfinite(values), values, np.nan)
    resampled = medians(np.moveaxis(known[drawn], 1, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of points at which all seeds are lost
        low, high = np.nanpercentile(resampled, INTERVAL, axis=0)
    return Curve(medians(known), low, high)


def medians(values: np.ndarray) -> np.ndarray:
    """Return the median [...] over the first axis [n, ...], without NaN; NaN where all are."""
    ordered = np.sort(values, axis=0)  # NaN come last
    count = np.isfinite(values).sum(0)
    middle = [np.maximum(at, 0)[None] for at in ((count - 1) // 2, count // 2)]
    middle[1] = np.minimum(middle[1], len(values) - 1)
    lower, upper = (np.take_along_axis(ordered, at, 0)[0] for at in middle)
    return (lower + upper) / 2


def lost_seeds(run: Run) -> int:
    """Return how many seeds of a run are lost: whose loss or a coefficient ends as no number."""
    names = [name for name in run if name == "loss" or THETA.fullmatch(name)]
    return int(np.any([~np.isfinite(run[name][:, -1]) for name in names], axis=0).sum())


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the `window` episodes around each, fewer at both ends: [..., episodes]."""
    around = [(0, 0)] * (values.ndim - 1) + [(window // 2, window - window // 2 - 1)]
    padded = np.pad(values, around, constant_values=np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a lost seed's episodes
        return np.nanmean(np.lib.stride_tricks.sliding_window_view(padded, window, -1), -1)


def curve(run: Run, column: str, window: int = WINDOW) -> Curve:
    """Return a column over episodes as it is drawn, [episodes], from seeds [seeds, episodes].

    Args:
        window: episodes in the moving average, at least 1; a coefficient is drawn as it is.
    """
    drawn_as_it_is = THETA.fullmatch(column)
    return bootstrap(run[column] if drawn_as_it_is else smoothed(run[column], window))


def layer_columns(run: Run, what: str) -> dict[int, str]:
    """Columns of what every layer has, by layer; without the output layer's angle, always 0."""
    found = [re.fullmatch(rf"layer_(\d+)_{what}", column) for column in run]
    columns = {int(match[1]): match[0] for match in found if match}
    if what == "angle":
        del columns[max(columns)]
    return columns


def coefficient_columns(run: Run) -> dict[int, dict[str, str]]:
    """Columns of coefficients by layer and term; layer 0 stands for all where they share them."""
    columns: dict[int, dict[str, str]] = {}
    for match in filter(None, map(THETA.fullmatch, run)):
        columns.setdefault(int(match[1] or 0), {})[match[2]] = match[0]
    return columns


def term_label(term: str) -> str:
    """A term as the paper writes its coefficient, with its name if it has one."""
    if term not in POOL:
        return wrapped(term, 18)
    number = POOL.index(term)
    name = "" if term == f"f{number}" else f" {PUBLISHED_NAMES.get(term, term)}"
    return rf"$\theta_{number}${name}"


def look(place: int) -> dict[str, Any]:
    """The colour and dashes of the line at a place; 28 lines are told apart."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": LINES[place // len(COLOURS) % len(LINES)],
    }


def entries(labels: Sequence[str]) -> list[Line2D]:
    """A legend's entries for lines at places 0, 1, ..., long ones in lines of their own."""
    return [
        Line2D([], [], label=wrapped(label), **look(place)) for place, label in enumerate(labels)
    ]


def wrapped(label: str, width: int = 22) -> str:
    """A user's label in lines that a legend has room for, safe from being read as formulae."""
    return textwrap.fill(label, width).replace("$", r"\$")


def draw_curves(axes: Axes, curves: Mapping[int, Curve], scale: float = 1) -> None:
    """Curves [episodes] by their place, times a scale, over the episodes from 1."""
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
    """Return between which the medians lie, but for a few episodes, which are off the scale."""
    found = np.concatenate([band.median for band in curves.values()])
    low, high = np.nanpercentile(found[found > 0], [1, 98])
    return float(low), float(high)


def draw_learning(
    loss: Axes, accuracy: Axes, runs: Sequence[Run], chance: float | None, window: int
) -> None:
    """Meta-loss and accuracy in percent, on axes of their own; chance: an accuracy of 0..1."""
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
    """Angles in degrees by place; a right angle, where errors agree by chance alone, is marked."""
    draw_curves(axes, curves)
    axes.axhline(90, color=GREY, linestyle=":", linewidth=1.4)
    # From a little below 0, where backpropagation's line is; panels may share the axis.
    widest = max(np.nanmax(band.high) for band in curves.values())
    axes.set_ylim(-4, max(94, 4 + widest, axes.get_ylim()[1]))
    axes.set_yticks(range(0, math.ceil(axes.get_ylim()[1]), 30))


def draw_orthonormality(axes: Axes, curves: Mapping[int, Curve]) -> None:
    """Orthonormality errors by place, on a logarithmic axis that only powers of ten label."""
    draw_curves(axes, curves)
    axes.set_yscale("log")
    low, high = usual_range(curves)
    axes.set_ylim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_formatter(NullFormatter())


def caption(runs: Sequence[Run], window: int = 1) -> str:
    """Return what lines and bands are, and over how many episodes each point is a mean."""
    counts = {len(next(iter(run.values()))) for run in runs}
    lost, of_all = (sum(count(run) for run in runs) for count in (lost_seeds, seed_count))
    over = f"; means of {window} episodes" if window > 1 else ""
    if counts == {1}:
        return f"one seed{over}"
    number = f"{counts.pop()} " if len(counts) == 1 else ""
    said = f"; {lost} of {of_all} seeds lost" if lost else ""
    return f"median over {number}seeds in its 98 % bootstrap interval{over}{said}"


def seed_count(run: Run) -> int:
    """Return how many seeds a run has."""
    return len(run["loss"])


def grid(count: int) -> tuple[int, int]:
    """Rows and columns for `count` panels and a legend."""
    columns = 2 if count == 3 else min(3, count + 1)
    return math.ceil((count + 1) / columns), columns


def grid_height(count: int) -> float:
    """Of a figure of `count` panels and a legend, in inches."""
    return 0.6 + 1.9 * grid(count)[0]


def cells_and_legend(
    figure: FigureBase, count: int, handles: Sequence[Line2D], ylabel: str, share: bool
) -> list[Axes]:
    """`count` panels, and the legend in the place after the last; share: one vertical scale."""
    cells = figure.subplots(*grid(count), squeeze=False, sharey=share).ravel()
    for cell in cells[count:]:
        cell.set_axis_off()
    cells[count].legend(handles=handles, loc="center left", borderaxespad=0, labelspacing=0.3)
    figure.supxlabel("episode", fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    return list(cells[:count])


def write(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure with its panels in rounded places, since the last digits of what the layout's
    solver finds differ from time to time; the files."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position().bounds, 6).tolist())
    return save_figure(figure, path)


def term_places(terms: Sequence[str]) -> dict[str, int]:
    """The place of each term's line: a term of the pool looks the same in every rule's figure."""
    own = [term for term in terms if term not in POOL]
    return {
        term: DISTINCT.index(term) if term in POOL else len(POOL) + own.index(term)
        for term in terms
    }


def draw_coefficients(figure: FigureBase, run: Run) -> None:
    """A run's coefficients in a figure or a part of one: one panel, or one for each layer."""
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
    """A vertical axis that is linear near 0 alone, where a linear one squeezes most curves."""
    peaks = [np.nanmax(np.abs(band.median)) for band in curves]
    middle, top = np.median(peaks), max(peaks)
    if 0 < SQUEEZED * middle < top:
        axes.set_yscale("symlog", linthresh=10 ** math.floor(math.log10(middle)))
        axes.yaxis.set_major_formatter(PLAIN)


@styled()
def learning_figure(
    runs: Mapping[str, Run], path: Path, chance: float | None = None, *, window: int = WINDOW
) -> list[Path]:
    """Meta-loss and accuracy of each rule over episodes.

    runs: by the rule's name. chance: the accuracy of a guess, 0..1. path: without suffix. window:
    episodes in the moving average. Returns the files.
    """
    figure, (loss, accuracy) = new_figure(1, 2, width=7, height=3.7)
    of_rules = list(runs.values())
    draw_learning(loss, accuracy, of_rules, chance, window)
    for axes in (loss, accuracy):
        axes.set_xlabel("episode")
    handles = entries(list(runs))
    if chance is not None:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="chance"))
    columns = 4 if max(map(len, runs)) <= 16 else 3
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    figure.suptitle(caption(of_rules, window), fontsize=9, color="0.35")
    return write(figure, path)


@styled()
def coefficients_figure(run: Run, path: Path, title: str = "") -> list[Path]:
    """A run's coefficients over episodes; per layer, where each has its own.

    title: the rule's name. path: without suffix. Returns the files.
    """
    layers = len(coefficient_columns(run))
    size = (4.2, 3.1) if layers == 1 else (7.0, grid_height(layers))
    figure = Figure(figsize=size, layout="constrained")
    draw_coefficients(figure, run)
    figure.suptitle("\n".join([*filter(None, [wrapped(title, 50)]), caption([run])]), fontsize=9)
    return write(figure, path)


@styled()
def alignment_figure(
    runs: Mapping[str, Run],
    path: Path,
    what: Literal["angle", "orthonormality"],
    *,
    window: int = WINDOW,
) -> list[Path]:
    """Angles in degrees, or orthonormality errors, of each rule over episodes, layer by layer.

    runs: by the rule's name, of networks of the same depth. path: without suffix. window: episodes
    in the moving average. Returns the files.
    """
    of_rules = list(runs.values())
    layers = layer_columns(of_rules[0], what)
    draw = draw_angles if what == "angle" else draw_orthonormality
    figure = Figure(figsize=(7, grid_height(len(layers))), layout="constrained")
    names = {"angle": "angle (degrees)", "orthonormality": "orthonormality error"}
    panels = cells_and_legend(
        figure, len(layers), entries(list(runs)), names[what], share=what == "angle"
    )
    for axes, (layer, column) in zip(panels, layers.items(), strict=True):
        draw(axes, {place: curve(run, column, window) for place, run in enumerate(of_rules)})
        axes.set_title(f"layer {layer}" + (", the input" if layer == 0 else ""), fontsize=10)
    figure.suptitle(caption(of_rules, window), fontsize=9, color="0.35")
    return write(figure, path)


@styled()
def episodes_figure(
    run: Run, path: Path, chance: float | None = None, *, window: int = WINDOW
) -> list[Path]:
    """One run: meta-loss, accuracy, angles and orthonormality errors by layer, coefficients.

    chance: the accuracy of a guess, 0..1. path: without suffix. window: episodes in the moving
    average. Returns the files.
    """
    layers = len(coefficient_columns(run))
    below = 2.4 if layers == 1 else grid_height(layers)
    figure = Figure(figsize=(7, 4.8 + below), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(4.8, below))
    above, coefficients = parts
    (loss, accuracy), (angle, orthonormality) = above.subplots(2, 2)
    draw_learning(loss, accuracy, [run], chance, window)
    angles, errors = (layer_columns(run, what) for what in ("angle", "orthonormality"))
    draw_angles(angle, {layer: curve(run, column, window) for layer, column in angles.items()})
    draw_orthonormality(
        orthonormality, {layer: curve(run, column, window) for layer, column in errors.items()}
    )
    angle.set(xlabel="episode", ylabel="angle (degrees)")
    orthonormality.set(xlabel="episode", ylabel="orthonormality error")
    names = [f"layer {layer}" for layer in range(max(errors) + 1)]
    above.legend(handles=entries(names), loc="outside lower center", ncols=6)
    draw_coefficients(coefficients, run)
    figure.suptitle(caption([run], window), fontsize=9, color="0.35")
    return write(figure, path)
