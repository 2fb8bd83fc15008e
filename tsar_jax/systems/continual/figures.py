"""Figures of continual learning: matrices of accuracy, and curves over tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tsar_jax.evaluation.spread import DEVIATION, FEWEST, PERCENT, deviation_band, finite_mean
from tsar_jax.plots.bands import draw_bars, draw_line
from tsar_jax.plots.style import bar_look, look, new_figure, save_figure, styled
from tsar_jax.systems.continual.measures import Outcome, main_measure, measure_title, measures

MODEL_TITLES = {
    "working": "working model",
    "semantic": "semantic memory",
    "stable": "stable model",
    "plastic": "plastic model",
}


@styled()
def accuracy_figure(outcome: Outcome, path: Path) -> list[Path]:
    """Draw the accuracy on every test after every task, mean over seeds, a panel for every
    model.
    """
    figure, axes = new_figure(
        1, len(outcome.models), width=1 + 3.2 * len(outcome.models), height=3.4, squeeze=False
    )
    for axis, model in zip(axes[0], outcome.models, strict=True):
        matrix = 100 * finite_mean(outcome.matrix(model))
        tasks, tests = matrix.shape
        image = axis.imshow(matrix, vmin=0, vmax=100, aspect="equal", interpolation="nearest")
        axis.set_xticks(*_numbers(tests))
        axis.set_yticks(*_numbers(tasks))
        axis.set_xlabel("test of task")
        axis.set_ylabel("after task")
        axis.set_title(MODEL_TITLES.get(model, model))
        if max(tasks, tests) <= 10:
            _write_numbers(axis, matrix)
    figure.colorbar(image, ax=axes[0].tolist(), label="accuracy (%)")
    seeds = outcome.seeds[1]
    figure.suptitle(
        f"{outcome.method} on {outcome.stream}"
        + (f", buffer {outcome.buffer}" if outcome.buffer else "")
        + (f", mean of {seeds} seeds" if seeds > 1 else "")
    )
    return save_figure(figure, path)


def _numbers(count: int) -> tuple[list[int], list[str]]:
    """Return places and labels of at most ten of `count` tasks, counted from 1."""
    step = -(-count // 10)
    places = list(range(0, count, step))
    return places, [str(place + 1) for place in places]


def _write_numbers(axis: object, matrix: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            axis.text(  # type: ignore[attr-defined]
                column,
                row,
                f"{value:.0f}",
                ha="center",
                va="center",
                color="white" if value < 60 else "black",
                fontsize=8,
            )


@styled()
def curves_figure(outcomes: Mapping[str, Sequence[Outcome]], path: Path, title: str) -> list[Path]:
    """Draw mean accuracy over the tasks learned so far, after every task, a line per method.

    In a cumulative stream: accuracy on all classes seen so far. Bands are those of the tables; a
    dotted line is the accuracy of learning all tasks at once. A method looks the same in every
    panel.

    Args:
        outcomes: by title of a panel, such as "buffer 200", the methods' results.
        path: without suffix.
        title: of the figure.

    Returns:
        The files.
    """
    several = [outcome for results in outcomes.values() for outcome in results]
    places = {method: at for at, method in enumerate(dict.fromkeys(o.method for o in several))}
    rows = -(-len(places) // 14)
    figure, axes = new_figure(
        1,
        len(outcomes),
        width=0.8 * (1 + rows) + 3 * len(outcomes),
        height=max(3.4, 0.6 + 0.2 * len(places) / rows),
        squeeze=False,
        sharey=True,
    )
    entries: dict[str, Any] = {}
    for axis, (panel, results) in zip(axes[0], outcomes.items(), strict=True):
        for outcome in results:
            _draw_curve(axis, outcome, look(places[outcome.method]))
        axis.set_title(panel)
        axis.set_xlabel("tasks learned")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(True)
        entries |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    cumulative = any(outcome.cumulative for outcome in several)
    tested_on = "all classes seen" if cumulative else "them"
    axes[0, 0].set_ylabel(f"accuracy on {tested_on} (%)")
    handles = [entries[method] for method in places]
    figure.legend(handles, list(places), loc="outside right center", ncols=rows, handlelength=3)
    figure.suptitle(f"{title}\n{band_caption(several)}", fontsize=10)
    return save_figure(figure, path)


def _draw_curve(axis: Any, outcome: Outcome, method_look: dict[str, Any]) -> None:
    """Draw one method's accuracy after every task; a dotted line where it learned all tasks at
    once.
    """
    curve = 100 * curve_of(outcome)
    if curve.shape[1] == 1:
        mean = float(finite_mean(curve)[0])
        axis.axhline(mean, color=method_look["color"], ls=":", label=outcome.method)
        return
    after = np.arange(1, curve.shape[1] + 1)
    draw_line(axis, after, curve, deviation_band, PERCENT, method_look, label=outcome.method)


def band_caption(outcomes: Sequence[Outcome]) -> str:
    """Return a caption that explains lines, bars and bands, and counts the seeds that are lost."""
    counts = {outcome.seeds[1] for outcome in outcomes}
    if counts == {1}:
        return "one seed"
    number = f"{counts.pop()} " if len(counts) == 1 else ""
    lost = sum(int(np.isnan(o.matrix()[:, -1, -1]).sum()) for o in outcomes)
    lost_text = f"; {lost} of {sum(o.seeds[1] for o in outcomes)} runs lost" if lost else ""
    return f"mean and {DEVIATION} over {number}seeds; of fewer than {FEWEST}, each{lost_text}"


def curve_of(outcome: Outcome) -> np.ndarray:
    """Return the accuracy after every task on the tasks learned so far: [seeds, tasks].

    It is the mean over their tests; of cumulative tests the last.
    """
    matrix = outcome.matrix()
    tasks = matrix.shape[1]
    if tasks == 1:  # all tasks at once
        return matrix[..., -1] if outcome.cumulative else matrix.mean(-1)
    if outcome.cumulative:
        return np.diagonal(matrix, axis1=1, axis2=2)
    return np.stack([matrix[:, task, : task + 1].mean(-1) for task in range(tasks)], 1)


@styled()
def bars_figure(outcomes: Sequence[Outcome], path: Path, title: str) -> list[Path]:
    """Draw average accuracy at the end, a group of bars per buffer size, a bar per method.

    Bands are those of the tables. Where results of a cumulative stream lack the average, the
    accuracy on all classes seen is drawn.
    """
    measure = main_measure(outcomes)
    buffers = sorted({outcome.buffer for outcome in outcomes if outcome.buffer}) or [0]
    methods = list(dict.fromkeys(outcome.method for outcome in outcomes))
    percent = {(o.method, o.buffer): 100 * measures(o)[measure] for o in outcomes}
    columns = -(-len(methods) // 14)
    figure, axis = new_figure(
        width=1.5 + columns + max(1.6, 0.2 * len(methods)) * len(buffers), height=3.4
    )
    width = 0.8 / len(methods)
    for index, method in enumerate(methods):
        of_buffers = [percent.get((method, b), percent.get((method, 0))) for b in buffers]
        places = [
            place + (index + 0.5) * width - 0.4
            for place, values in enumerate(of_buffers)
            if values is not None
        ]
        measured = [values for values in of_buffers if values is not None]
        method_look = {**bar_look(index), "label": method}
        draw_bars(axis, places, measured, 0.9 * width, deviation_band, PERCENT, **method_look)
    axis.set_xticks(range(len(buffers)), [f"buffer {b}" if b else "" for b in buffers])
    long_title = measure_title(measure, any(outcome.cumulative for outcome in outcomes))
    axis.set_ylabel(f"{long_title} (%)".replace(" over ", "\nover "))
    axis.grid(True, axis="y")
    axis.set_title(f"{title}\n{band_caption(outcomes)}", fontsize=10)
    figure.legend(loc="outside right center", ncols=columns)
    return save_figure(figure, path)
