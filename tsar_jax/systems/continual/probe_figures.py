"""Figures of trained continual learners: confidence, calibration, flatness, trade-off."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tsar_jax.evaluation.spread import DEVIATION, FEWEST, PERCENT, deviation_band
from tsar_jax.plots.bands import draw_line
from tsar_jax.plots.style import (
    BLACK,
    bar_look,
    dot_look,
    look,
    new_figure,
    save_figure,
    styled,
)
from tsar_jax.systems.continual.probes import Reliability


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Analysis of one run's reported model.

    label: of its method and buffer. by_class: whether tasks differ in their classes.
    task_probability [tasks]: mean probability of each task's classes over all test images.
    task_accuracy [tests]: at the end. reliability: of all test images. noise [seeds, deviations]:
    accuracy with noise on the weights. trade_off: stability, plasticity and their harmonic mean,
    each [seeds]; {}: has none.
    """

    label: str
    by_class: bool
    task_probability: np.ndarray
    task_accuracy: np.ndarray
    reliability: Reliability
    noise: np.ndarray
    trade_off: Mapping[str, np.ndarray]

    def to_json(self) -> dict[str, Any]:
        """Return the analysis as JSON values; nan where a bin has no images becomes null."""
        return {
            "task_probability": self.task_probability.tolist() if self.by_class else None,
            "task_accuracy": self.task_accuracy.tolist(),
            "expected_calibration_error": self.reliability.error,
            "reliability": {
                name: [None if np.isnan(v) else float(v) for v in getattr(self.reliability, name)]
                for name in ("share", "confidence", "accuracy")
            },
            "noise": self.noise.mean(0).tolist(),
            "trade_off": {name: float(values.mean()) for name, values in self.trade_off.items()},
        }


@styled()
def tasks_figure(analyses: Sequence[Analysis], path: Path) -> list[Path]:
    """Draw each task's mean probability, or, where tasks share classes, its accuracy."""
    by_class = analyses[0].by_class
    figure, axis = new_figure(width=6.5, height=3.4)
    width = 0.8 / len(analyses)
    for index, analysis in enumerate(analyses):
        values = 100 * (analysis.task_probability if by_class else analysis.task_accuracy)
        tasks = np.arange(1, len(values) + 1)
        if by_class:
            places = tasks + (index + 0.5) * width - 0.4
            axis.bar(places, values, 0.9 * width, label=analysis.label, **bar_look(index))
        else:
            axis.plot(tasks, values, marker="o", ms=4, label=analysis.label, **look(index))
    if by_class:
        axis.axhline(100 / len(tasks), color=BLACK, lw=1, ls=":", label="no bias")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("task, in the order of learning")
    axis.set_ylabel(
        "mean probability of its classes (%)" if by_class else "accuracy at the end (%)"
    )
    axis.grid(True, axis="y")
    figure.legend(loc="outside right center")
    return save_figure(figure, path)


@styled()
def calibration_figure(analyses: Sequence[Analysis], path: Path) -> list[Path]:
    """Draw a reliability diagram for each: accuracy against confidence; the diagonal has no
    error.
    """
    columns = min(4, len(analyses))
    rows = -(-len(analyses) // columns)
    figure, axes = new_figure(
        rows,
        columns,
        width=0.6 + 2.3 * columns,
        height=0.5 + 2.4 * rows,
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for index, axis in enumerate(axes.flat):
        if index >= len(analyses):
            axis.set_visible(False)
            continue
        diagram = analyses[index].reliability
        edges = np.arange(len(diagram.share)) / len(diagram.share)
        axis.bar(
            edges,
            np.nan_to_num(diagram.accuracy),
            1 / len(diagram.share),
            align="edge",
            **{"edgecolor": "white", **bar_look(index)},
        )
        axis.plot([0, 1], [0, 1], color=BLACK, lw=1, ls=":")
        axis.set_title(f"{analyses[index].label}\nerror {100 * diagram.error:.1f} %", fontsize=9)
        axis.set_aspect("equal")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
    figure.supxlabel("confidence", fontsize=10)
    figure.supylabel("accuracy", fontsize=10)
    return save_figure(figure, path)


@styled()
def noise_figure(analyses: Sequence[Analysis], deviations: np.ndarray, path: Path) -> list[Path]:
    """Draw accuracy over all tasks with Gaussian noise on every weight, bands as in the tables."""
    figure, axis = new_figure(width=6, height=3.4)
    for index, analysis in enumerate(analyses):
        marks: dict[str, Any] = {"marker": "o", "ms": 4, "label": analysis.label}
        noisy = 100 * analysis.noise
        draw_line(axis, deviations, noisy, deviation_band, PERCENT, look(index), **marks)
    if any(len(analysis.noise) > 1 for analysis in analyses):
        axis.set_title(f"mean and {DEVIATION} over seeds; of fewer than {FEWEST}, each", fontsize=9)
    axis.set_xlabel("standard deviation of the noise on every weight")
    axis.set_ylabel("accuracy (%)")
    axis.grid(True)
    figure.legend(loc="outside right center")
    return save_figure(figure, path)


@styled()
def trade_off_figure(analyses: Sequence[Analysis], path: Path) -> list[Path]:
    """Draw stability against plasticity, a point per seed: the best are at the upper right."""
    figure, axis = new_figure(width=5.6, height=3.8)
    for index, analysis in enumerate(analyses):
        stability, plasticity = (
            100 * analysis.trade_off[name] for name in ("stability", "plasticity")
        )
        dots: dict[str, Any] = {"linestyle": "none", "ms": 5, "label": analysis.label}
        axis.plot(plasticity, stability, **dots, **dot_look(index))
    axis.set_xlim(*_margins(analyses, "plasticity"))
    axis.set_ylim(*_margins(analyses, "stability"))
    axis.set_xlabel("plasticity: accuracy right after learning (%)")
    axis.set_ylabel("stability: accuracy on old tasks (%)")
    axis.grid(True)
    figure.legend(loc="outside right center")
    return save_figure(figure, path)


def _margins(analyses: Sequence[Analysis], name: str) -> tuple[float, float]:
    values = 100 * np.concatenate([analysis.trade_off[name] for analysis in analyses])
    margin = max(1.0, 0.1 * float(np.ptp(values)))
    return float(values.min()) - margin, min(100.0, float(values.max()) + margin)
