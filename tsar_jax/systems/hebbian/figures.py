"""Figures of evolved plasticity: evolution, recovery from lesions, weights, fitness by body."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import FuncFormatter

from tsar_jax.evaluation.spread import DEVIATION, FEWEST, UNBOUNDED, deviation_band, lifetimes_band
from tsar_jax.plots.bands import draw_bars
from tsar_jax.plots.style import (
    BLACK,
    BLUE,
    GREY,
    bar_look,
    look,
    new_figure,
    save_figure,
    styled,
)

Rows = Sequence[Mapping[str, Any]]


def series(rows: Rows, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values of a metric in a run's rows of one split."""
    points = [(row["step"], row[name]) for row in rows if row["split"] == split]
    steps, values = np.asarray(points, float).reshape(-1, 2).T
    return steps, values


@styled()
def evolution_figure(rows: Rows, path: Path) -> Path:
    """Draw a population's mean fitness between its worst and best member, and its centre's.

    Args:
        rows: a run's metrics.
        path: without suffix.

    Returns:
        The PNG's path; there is a PDF beside it.
    """
    figure, axes = new_figure(width=5.0, height=3.2)
    steps, mean = series(rows, "train", "fitness_mean")
    worst, best = (series(rows, "train", f"fitness_{end}")[1] for end in ("worst", "best"))
    axes.fill_between(steps, worst, best, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(steps, mean, color=BLUE, label="population: mean, worst to best")
    times, centre = series(rows, "eval", "fitness")
    axes.plot(times, centre, "o", color=BLACK, markersize=4, label="its centre, other lifetimes")
    axes.set(xlabel="generation", ylabel="fitness", xlim=(0, None))
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=2)
    return save_figure(figure, path)[0]


@styled()
def comparison_figure(runs: Mapping[str, Sequence[Rows]], path: Path) -> Path:
    """Draw mean fitness over generations of several kinds of run, each in the range of its runs."""
    figure, axes = new_figure(width=5.0, height=3.6)
    for place, (label, several) in enumerate(runs.items()):
        curves = [series(rows, "train", "fitness_mean") for rows in several]
        shortest = min(len(steps) for steps, _ in curves)
        values = np.stack([values[:shortest] for _, values in curves])
        steps, drawn = curves[0][0][:shortest], look(place)
        axes.plot(steps, values.mean(0), label=f"{label} ({len(several)})", **drawn)
        low, high = values.min(0), values.max(0)
        axes.fill_between(steps, low, high, color=drawn["color"], alpha=0.2, linewidth=0)
    axes.set(xlabel="generation", ylabel="mean fitness of the population", xlim=(0, None))
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=2, title="runs; bands: their range")
    return save_figure(figure, path)[0]


class Course(NamedTuple):
    """An evolution's course, by the rows of its metrics.

    name: of its folder. generations, lifetimes: how many there were by each row [n]. mean: fitness
    of the population, a mean over the generations of the row [n]. centre: fitness of the
    population's centre at each evaluation.
    """

    name: str
    generations: np.ndarray
    lifetimes: np.ndarray
    mean: np.ndarray
    centre: np.ndarray


@styled()
def learning_figure(panels: Mapping[str, Mapping[str, Sequence[Course]]], path: Path) -> Path:
    """Draw fitness against lifetimes: a panel for each environment, a curve for each kind of run.

    A curve is the mean over runs, in their standard deviation.

    Args:
        panels: by environment and kind, the runs.
        path: without suffix.

    Returns:
        The PNG's path; there is a PDF beside it.
    """
    kinds = list(dict.fromkeys(kind for of_panel in panels.values() for kind in of_panel))
    count = len(panels)
    figure, all_axes = new_figure(1, count, width=1 + 3.4 * count, height=3.6, squeeze=False)
    for axes, (environment, of_panel) in zip(all_axes[0], panels.items(), strict=True):
        for kind, runs in of_panel.items():
            shortest = min(len(run.mean) for run in runs)
            band = deviation_band(np.stack([run.mean[:shortest] for run in runs]), UNBOUNDED)
            lived, drawn = runs[0].lifetimes[:shortest], look(kinds.index(kind))
            axes.plot(lived, band.mean, label=kind, **drawn)
            axes.fill_between(
                lived, band.low, band.high, color=drawn["color"], alpha=0.2, linewidth=0
            )
        axes.set(title=environment, xlabel="lifetimes", xlim=(0, None))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="y")
    all_axes[0, 0].set_ylabel("mean fitness of the population")
    handles = {
        label: handle
        for axes in all_axes[0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=2 if count > 1 else 1,
        title=f"mean over runs; bands: {DEVIATION}",
    )
    return save_figure(figure, path)[0]


def smoothed(rewards: np.ndarray, width: int) -> np.ndarray:
    """Return the running mean over the last axis, of `width` steps around each, fewer at the
    end.
    """
    steps = rewards.shape[-1]
    kernel = np.ones(min(width, steps))
    counts = np.convolve(np.ones(steps), kernel, "same")
    return np.stack([np.convolve(row, kernel, "same") / counts for row in rewards])


@styled()
def recovery_figure(
    rewards: Mapping[str, np.ndarray],
    marks: Mapping[str, tuple[int, int]],
    path: Path,
    *,
    width: int = 20,
) -> Path:
    """Draw the rewards of lesioned agents from step to step, beside intact ones.

    Args:
        rewards: by condition, [lifetimes, steps]; the first is drawn in every panel.
        marks: by condition, the steps between which the lesion acts, shaded.
        path: without suffix.
        width: steps of the running mean.

    Returns:
        The PNG's path; there is a PDF beside it.
    """
    intact, *lesions = rewards
    figure, panels = new_figure(
        len(lesions), 1, width=5.0, height=1.4 + 1.6 * len(lesions), sharex=True, squeeze=False
    )
    for axes, lesion in zip(panels[:, 0], lesions, strict=True):
        for name, colour in ((intact, GREY), (lesion, BLUE)):
            curves = smoothed(rewards[name], width)
            low, middle, high = np.percentile(curves, [25, 50, 75], axis=0)
            steps = np.arange(curves.shape[1])
            axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(steps, middle, color=colour, label=name, linewidth=1.4)
        axes.axvspan(*marks[lesion], color=BLACK, alpha=0.1, linewidth=0)
        axes.set(ylabel="reward per step", xlim=(0, None))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        axes.grid(axis="y")
    panels[-1, 0].set_xlabel(
        f"step (median and quartiles of {len(rewards[intact])} lifetimes, mean of {width} steps)"
    )
    return save_figure(figure, path)[0]


@styled()
def weights_figure(images: Mapping[str, np.ndarray], path: Path) -> Path:
    """Draw one layer's weights [out, in] at several times, by title, on one colour scale."""
    figure, panels = new_figure(1, len(images), width=2.3 * len(images), height=2.6, squeeze=False)
    # A few synapses grow without bound: the scale ignores the top 2 % to show the others.
    end = max(np.percentile(np.abs(image), 98) for image in images.values()) or 1.0
    for axes, (title, image) in zip(panels[0], images.items(), strict=True):
        drawn = axes.imshow(
            image, cmap="RdBu_r", vmin=-end, vmax=end, aspect="auto", interpolation="nearest"
        )
        axes.set(title=title, xlabel="from unit")
    panels[0, 0].set_ylabel("to unit")
    figure.colorbar(drawn, ax=panels[0], label="weight", extend="both")
    return save_figure(figure, path)[0]


@styled()
def bodies_figure(fitness: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> Path:
    """Draw fitness on each body [lifetimes], by kind of run, then by body, as in the table."""
    kinds, bodies = list(fitness), list(next(iter(fitness.values())))
    figure, axes = new_figure(width=max(5.0, 1 + len(bodies)), height=3.2)
    bar = 0.8 / len(kinds)
    for place, kind in enumerate(kinds):
        middles = np.arange(len(bodies)) + (place - (len(kinds) - 1) / 2) * bar
        lifetimes = [fitness[kind][body] for body in bodies]
        kind_look = {**bar_look(place), "label": kind}
        draw_bars(axes, middles, lifetimes, bar, lifetimes_band, UNBOUNDED, **kind_look)
    labels = [body.replace("+", ",\n").replace("_", " ").replace(":", " ") for body in bodies]
    axes.set(xticks=range(len(bodies)), xticklabels=labels, ylabel="fitness")
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.grid(axis="y")
    figure.legend(
        loc="outside lower center",
        ncols=min(4, len(kinds)),
        title=f"mean and {DEVIATION} of lifetimes; of fewer than {FEWEST}, each",
    )
    return save_figure(figure, path)[0]
