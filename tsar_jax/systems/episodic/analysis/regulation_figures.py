"""The figures of a TSAR's regulation: power laws, histograms, co-activity, output weights.

Each function draws counts of `tsar_jax.systems.episodic.analysis.regulation` and returns the
figure, which `save_figure` writes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from tsar_jax.evaluation.spread import UNBOUNDED, confidence_band
from tsar_jax.plots.bands import draw_line
from tsar_jax.plots.style import (
    BLACK,
    BLUE,
    GREY,
    VERMILION,
    dot_look,
    look,
    new_figure,
    styled,
)
from tsar_jax.systems.episodic.analysis.co_activity import OFTEN
from tsar_jax.systems.episodic.analysis.power_law import Tail, fit_tail
from tsar_jax.systems.episodic.analysis.regulation import AFTER, BEFORE, bin_centres

LAYERS = {
    "block_0": "C1",
    "block_1": "C2",
    "block_2": "C3",
    "head": "the output layer",
}
"""The layers' names in the paper."""

SIGNS = {"positive": BLUE, "negative": VERMILION}
"""Colours of the output weights' signs."""
DRAWN_BINS = 100
"""Bins in which histograms of information are drawn; it divides the number of those counted."""


def draw_points(
    axes: Axes, centres: np.ndarray, heights: np.ndarray, place: int, label: str
) -> Line2D:
    """Draw filled bins as points, and return the legend's entry.

    Args:
        centres, heights: [bins].
        place: number of the colour and marker.
    """
    filled = heights > 0
    points: dict[str, Any] = {**dot_look(place), "markersize": 3.5}
    axes.plot(
        centres[filled], heights[filled], linestyle="none", alpha=0.35, markeredgewidth=0, **points
    )
    return Line2D([], [], linestyle="none", label=label, **points)


def draw_tail(axes: Axes, centres: np.ndarray, counts: np.ndarray, tail: Tail, place: int) -> None:
    """Draw the fitted power law of a histogram over its tail, if it has one.

    Args:
        centres, counts: [bins].
        place: number of the colour.
    """
    inside = (centres > tail.xmin) & (counts > 0)
    if not inside.any():
        return
    x = centres[centres > tail.xmin]
    law = x**-tail.exponent
    y = counts[centres > tail.xmin].sum() * law / law.sum()
    within = x <= centres[inside].max()
    outlined = [withStroke(linewidth=3, foreground="white")]
    axes.plot(x[within], y[within], color=dot_look(place)["color"], path_effects=outlined)


def tail_text(tail: Tail) -> str:
    """Return a fitted tail in words."""
    if np.isnan(tail.exponent):
        return "no tail to fit"
    return f"tail above {tail.xmin:.2g}: exponent {tail.exponent:.1f}"


def decades(values: np.ndarray) -> tuple[float, float]:
    """Return an axis's ends, a little beyond the powers of ten around positive values [n].

    The powers are then inside, and label the axis.
    """
    margin = 1.3
    low, high = np.log10([values.min(), values.max()])
    return float(10 ** np.floor(low)) / margin, float(10 ** np.ceil(high)) * margin


def log_log_figure(
    centres: np.ndarray, rows: Mapping[str, np.ndarray], title: str, x: str, y: str
) -> tuple[Figure, Axes]:
    """Return a figure of rows of heights on log-log axes, with its axes.

    Args:
        centres: centres of the bins [bins].
        rows: heights [bins] by label.
        title, x, y: title, and labels of the axes.
    """
    figure, axes = new_figure(width=5.6, height=4.0)
    entries = [
        draw_points(axes, centres, heights, place, label)
        for place, (label, heights) in enumerate(rows.items())
    ]
    axes.set(xscale="log", yscale="log", title=title, xlabel=x, ylabel=y)
    filled = np.any([row > 0 for row in rows.values()], 0)
    axes.set_xlim(decades(centres[filled]))
    # A fitted line may leave the range of what was counted.
    axes.set_ylim(decades(np.concatenate([row[row > 0] for row in rows.values()])))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.grid()
    figure.legend(handles=entries, loc="outside lower center", ncols=1)
    return figure, axes


@styled()
def regulation_figure(histograms: Mapping[str, np.ndarray], layer: str, whose: str) -> Figure:
    """Draw log-log histograms of a layer's regulation.

    Args:
        histograms: counts [bins] of gates in [0, 1], by label.
        layer: the layer's name.
        whose: last line of the title.
    """
    rows = {label: counts / counts.sum() for label, counts in histograms.items()}
    bins = next(iter(rows.values())).size
    figure, _ = log_log_figure(
        bin_centres(bins),
        rows,
        f"Regulation of {LAYERS[layer]}\n{whose}",
        f"regulation r ({bins:,} bins)",
        "share of synapses, all images",
    )
    return figure


@styled()
def avalanche_figure(
    counts: np.ndarray, thresholds: Sequence[float], layer: str, whose: str
) -> Figure:
    """Draw log-log histograms of how many synapses are above a threshold at once.

    A line is the power law of the tail alone, fitted by maximum likelihood (`fit_tail`).

    Args:
        counts: images by the share of synapses above a threshold, in [0, 1]; [thresholds, bins].
        layer: the layer's name.
        whose: last line of the title.
    """
    bins = counts.shape[1]
    tails = [fit_tail(row) for row in counts]
    rows = {
        f"r > {threshold:.2f}: {tail_text(tail)}": row
        for threshold, row, tail in zip(thresholds, counts, tails, strict=True)
    }
    figure, axes = log_log_figure(
        bin_centres(bins),
        rows,
        f"Avalanches in {LAYERS[layer]}\n{whose}",
        f"share of synapses above the threshold in an image ({bins:,} bins)",
        "number of images",
    )
    for place, (row, tail) in enumerate(zip(counts, tails, strict=True)):
        draw_tail(axes, bin_centres(bins), row, tail, place)
    return figure


def draw_counts(figure: Figure, axes: Axes, counts: np.ndarray, end: float, label: str) -> None:
    """Draw counts of rows (upwards) against columns on logarithmic colours, empty bins white.

    Args:
        counts: [bins, bins].
        end: end of both axes, which begin at 0.
        label: label of the colour bar.
    """
    image = axes.imshow(
        np.ma.masked_equal(counts, 0),
        origin="lower",
        extent=(0, end, 0, end),
        norm=LogNorm(1, max(counts.max(), 10)),
        interpolation="none",
        rasterized=True,
    )
    figure.colorbar(image, ax=axes, label=label)
    axes.axline((0, 0), slope=1, color=VERMILION, linestyle="--", linewidth=1)


def correlation_text(correlation: float) -> str:
    """Return a correlation in words, or why there is none."""
    if np.isnan(correlation):
        return "no correlation, all in one bin"
    return f"correlation {correlation:.2f}"


@styled()
def rank_figure(
    counts: np.ndarray, synapses: int, correlation: float, layer: str, whose: str
) -> Figure:
    """Draw the ranks of a layer's synapses in one class against those over the other classes.

    Args:
        counts: histogram of log10 ranks in a class (rows) and over the others [bins, bins]; bins
            divide 0 .. log10 synapses.
        synapses: number of the layer's synapses.
        correlation: of the ranks.
        layer: the layer's name.
        whose: last line of the title.
    """
    figure, axes = new_figure(width=5.2, height=4.4)
    end = float(np.log10(max(synapses, 2)))
    draw_counts(figure, axes, counts, end, "number of synapses, summed over classes")
    axes.set(
        title=f"Ranks of {synapses:,} synapses of {LAYERS[layer]}:\n"
        f"{correlation_text(correlation)}\n{whose}",
        xlabel="log10 rank over the other classes (0: most open)",
        ylabel="log10 rank in one class (0: most open)",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return figure


@styled()
def lag_figure(
    counts: np.ndarray, synapses: int, correlation: float, layer: str, whose: str
) -> Figure:
    """Draw regulation at one image against the image before.

    The axes end where nothing more was counted.

    Args:
        counts: histogram of gates in [0, 1] at image t - 1 (rows) and at t [bins, bins].
        synapses: number of synapses that were counted, those `between_percentiles`.
        correlation: of the gates.
        layer: the layer's name.
        whose: last line of the title.
    """
    figure, axes = new_figure(width=5.6, height=4.6)
    # The rows go up, so that the later image is on the vertical axis only once turned over.
    draw_counts(figure, axes, counts.T, 1, "number of synapses, summed over images")
    end = (np.argwhere(counts > 0).max(initial=0) + 2) / len(counts)
    axes.set(
        title=f"Time lag of {synapses:,} synapses of {LAYERS[layer]}, percentiles 75 to 99:\n"
        f"{correlation_text(correlation)}\n{whose}",
        xlabel="regulation r at image t - 1",
        ylabel="regulation r at image t",
        xlim=(0, min(end, 1)),
        ylim=(0, min(end, 1)),
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return figure


@styled()
def co_activity_figure(
    counts: Mapping[tuple[str, ...], np.ndarray], thresholds: Sequence[float], whose: str
) -> Figure:
    """Draw histograms of the normalised pointwise mutual information of pairs of synapses.

    Where there is no pair, the axes say so.

    Args:
        counts: pairs by information in [0, 1], [thresholds, bins], by one or two layers.
        thresholds: gates above which a synapse fires.
        whose: last line of the title.
    """
    figure, row = new_figure(
        1, len(counts), width=3.6 * len(counts), height=4.9, sharey=True, squeeze=False
    )
    for axes, (layers, rows) in zip(row[0], counts.items(), strict=True):
        draw_information(axes, rows, thresholds)
        axes.set_title(" with ".join(LAYERS[layer] for layer in layers))
        axes.set_xlabel(
            "normalised pointwise mutual information\n(0: by chance or less, 1: always together)"
        )
    row[0][0].set_ylabel("share of pairs")
    figure.suptitle(
        f"Co-activity of all pairs of synapses that fire on more than {OFTEN:.0%} of the images\n"
        f"{whose}",
        fontsize=11,
    )
    return figure


def draw_information(axes: Axes, rows: np.ndarray, thresholds: Sequence[float]) -> None:
    """Draw histograms of information in [0, 1] as shares of pairs, on a logarithmic axis.

    Args:
        rows: counts [thresholds, bins].
        thresholds: gates above which a synapse fires.
    """
    centres = bin_centres(rows.shape[1])
    edges = np.linspace(0, 1, DRAWN_BINS + 1)
    for place, (counts, threshold) in enumerate(zip(rows, thresholds, strict=True)):
        name = f"r > {threshold:.2f}: "
        line_look = look(place)
        pairs = counts.sum()
        if not pairs:
            axes.plot([], [], **line_look, label=name + "no pairs")
            continue
        shares = counts.reshape(DRAWN_BINS, -1).sum(1) / pairs
        label = f"{name}{short_count(pairs)} pairs, mean {counts @ centres / pairs:.3f}"
        axes.stairs(np.where(shares > 0, shares, np.nan), edges, label=label, **line_look)
    axes.set(yscale="log", xlim=(0, 1))
    axes.grid()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))


def short_count(number: float) -> str:
    """Return a count with its unit, such as 1.3 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


@styled()
def output_figure(
    changes: Mapping[str, np.ndarray], profiles: Mapping[str, np.ndarray], whose: str
) -> Figure:
    """Draw how the output layer's regulation changes around the class shown.

    Values that are not finite are left out.

    Args:
        changes: relative changes [classes - 2] as `output_changes` gives them; drawn as boxes.
        profiles: relative changes [classes - 2, BEFORE + 1 + AFTER] as `output_profile` gives them,
            by sign of the weights; drawn as lines.
        whose: last line of the title.
    """
    figure, (left, right) = new_figure(1, 2, width=9.4, height=4.2)
    for sign, colour in SIGNS.items():
        draw_profile(left, profiles[sign], colour)
    entries = draw_changes(right, changes)
    for axes in (left, right):
        axes.axhline(0, color=GREY, linewidth=1, zorder=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.grid(axis="y")
    left.axvline(0, color=GREY, linewidth=1, linestyle=":", zorder=0)
    left.set(
        title=f"Class by class, against the {BEFORE} before",
        xlabel="classes after the unit's own (0: its own is shown)",
        ylabel="relative change of mean regulation",
    )
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(title="While its class is shown", ylabel="relative change of mean regulation")
    figure.suptitle(f"Regulation of a class's own output weights\n{whose}", fontsize=11)
    figure.legend(handles=entries, loc="outside lower center", ncols=3)
    return figure


def draw_profile(axes: Axes, profile: np.ndarray, colour: str) -> None:
    """Draw the mean of relative changes [classes, BEFORE + 1 + AFTER] in its confidence band."""
    finite = np.where(np.isfinite(profile), profile, np.nan)
    known = np.isfinite(finite).any(0)
    if known.any():
        x = np.arange(finite.shape[1])[known] - BEFORE
        marks: dict[str, Any] = {"marker": "o", "markersize": 4}
        values = finite[:, known]
        draw_line(axes, x, values, confidence_band, UNBOUNDED, {"color": colour}, **marks)


def draw_changes(axes: Axes, changes: Mapping[str, np.ndarray]) -> list[Any]:
    """Draw boxes of relative changes, and return the legend's entries.

    Args:
        changes: relative changes by window and sign of the weights, as in `output_figure`.
    """
    entries = []
    for side, (sign, colour) in enumerate(SIGNS.items()):
        for place, when in enumerate(("before", "after")):
            values = changes[f"{when}, {sign}"]
            drawn = axes.boxplot(
                values[np.isfinite(values)],
                positions=[place + (side - 0.5) * 0.36],
                widths=0.3,
                patch_artist=True,
                showmeans=True,
                boxprops={"facecolor": colour, "alpha": 0.55},
                medianprops={"color": BLACK},
                meanprops={"marker": "D", "markersize": 5, "markerfacecolor": "white"}
                | {"markeredgecolor": BLACK},
                flierprops={"marker": ".", "markersize": 4, "markeredgecolor": colour},
            )
        drawn["boxes"][0].set_label(f"{sign} weights")
        entries += drawn["boxes"]
    entries += drawn["means"]
    drawn["means"][0].set_label("mean")
    windows = f"against the {BEFORE}\nclasses before", f"against the {AFTER}\nclasses after"
    axes.set_xticks([0, 1], windows)
    axes.set_xlim(-0.5, 1.5)
    return entries
