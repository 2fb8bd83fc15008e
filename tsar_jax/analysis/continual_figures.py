"""Figures of continual learning: matrices of accuracy, and curves over tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tsar_jax.analysis.style import PALETTE, new_figure, save_figure, styled
from tsar_jax.evaluation.continual import Outcome, main_measure, measure_title, measures

MODEL_TITLES = {
    "working": "working model",
    "semantic": "semantic memory",
    "stable": "stable model",
    "plastic": "plastic model",
}


@styled()
def accuracy_figure(outcome: Outcome, path: Path) -> list[Path]:
    """Accuracy on every test after every task, the mean over seeds, a panel for every model."""
    figure, axes = new_figure(
        1, len(outcome.models), width=1 + 3.2 * len(outcome.models), height=3.4, squeeze=False
    )
    for axis, model in zip(axes[0], outcome.models, strict=True):
        matrix = 100 * outcome.matrix(model).mean(0)
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
    """Places and labels of at most ten of so many tasks, counted from 1."""
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
    """Mean accuracy over the tasks learned so far, after every task, a line per method.

    In a cumulative stream: accuracy on all classes seen so far.

    outcomes: by title of a panel, such as "buffer 200", the methods' results. A band is one
    standard deviation over seeds; a dashed line, what all tasks at once give.
    """
    figure, axes = new_figure(
        1, len(outcomes), width=0.8 + 3 * len(outcomes), height=3.4, squeeze=False, sharey=True
    )
    for axis, (panel, results) in zip(axes[0], outcomes.items(), strict=True):
        for colour, outcome in zip(PALETTE, results, strict=False):
            curve = 100 * curve_of(outcome)
            after = np.arange(1, curve.shape[1] + 1)
            mean, deviation = curve.mean(0), curve.std(0)
            if len(after) == 1:  # all tasks at once
                axis.axhline(mean[0], color=colour, ls="--", label=outcome.method)
                continue
            axis.plot(after, mean, color=colour, label=outcome.method)
            axis.fill_between(after, mean - deviation, mean + deviation, color=colour, alpha=0.2)
        axis.set_title(panel)
        axis.set_xlabel("tasks learned")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(True)
    cumulative = any(outcome.cumulative for results in outcomes.values() for outcome in results)
    what = "all classes seen" if cumulative else "them"
    axes[0, 0].set_ylabel(f"accuracy on {what} (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(title)
    return save_figure(figure, path)


def curve_of(outcome: Outcome) -> np.ndarray:
    """Return the accuracy after every task on what was learned so far: [seeds, tasks].

    The mean over those tests; of cumulative tests the last.
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
    """Average accuracy at the end, a group of bars per buffer size, a bar per method.

    Where results of a cumulative stream lack the average: the accuracy on all classes seen.
    """
    measure = main_measure(outcomes)
    buffers = sorted({outcome.buffer for outcome in outcomes if outcome.buffer}) or [0]
    methods = list(dict.fromkeys(outcome.method for outcome in outcomes))
    found = {(o.method, o.buffer): 100 * measures(o)[measure] for o in outcomes}
    figure, axis = new_figure(width=2.5 + 1.6 * len(buffers), height=3.4)
    width = 0.8 / len(methods)
    for index, method in enumerate(methods):
        shown = [found.get((method, b), found.get((method, 0))) for b in buffers]
        places = [
            place + (index + 0.5) * width - 0.4
            for place, values in enumerate(shown)
            if values is not None
        ]
        means = [values.mean() for values in shown if values is not None]
        errors = [values.std() for values in shown if values is not None]
        axis.bar(
            places,
            means,
            0.9 * width,
            yerr=errors,
            color=PALETTE[index % len(PALETTE)],
            label=method,
            error_kw={"linewidth": 1},
        )
    axis.set_xticks(range(len(buffers)), [f"buffer {b}" if b else "" for b in buffers])
    long_title = measure_title(measure, any(outcome.cumulative for outcome in outcomes))
    axis.set_ylabel(f"{long_title} (%)".replace(" over ", "\nover "))
    axis.grid(True, axis="y")
    axis.set_title(title)
    figure.legend(loc="outside right center")
    return save_figure(figure, path)
