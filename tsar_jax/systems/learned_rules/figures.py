"""The figures of learned plasticity rules: loss and accuracy, coefficients, alignment.

A run is what `read_episodes` gives: columns [seeds, episodes] by name. Drawn are medians over seeds
in 98 % bootstrap intervals; in Shervani-Tabar and Rosenbaum (2023), arXiv 2210.16414, means.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tsar_jax.plots.style import GREY, new_figure, styled
from tsar_jax.systems.learned_rules.drawing import (
    caption,
    cells_and_legend,
    draw_angles,
    draw_coefficients,
    draw_learning,
    draw_orthonormality,
    entries,
    grid_height,
    wrapped,
    write,
)
from tsar_jax.systems.learned_rules.episode_curves import (
    WINDOW,
    Run,
    coefficient_columns,
    curve,
    layer_columns,
)


@styled()
def learning_figure(
    runs: Mapping[str, Run], path: Path, chance: float | None = None, *, window: int = WINDOW
) -> list[Path]:
    """Draw meta-loss and accuracy of each rule over episodes.

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
    """Draw a run's coefficients over episodes; per layer, where each has its own.

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
    """Draw angles in degrees, or orthonormality errors, of each rule, layer by layer.

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
    """Draw a run: meta-loss, accuracy, angles and orthonormality errors by layer, coefficients.

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


def comparison_figures(
    runs: Mapping[str, Run], folder: Path, chance: float, *, window: int = WINDOW
) -> None:
    """Write every figure that compares rules, and one of each rule's coefficients.

    runs: by the rule's name, of networks of the same depth. chance: the accuracy of a guess, 0..1.
    window: episodes in the moving average.
    """
    learning_figure(runs, folder / "learning", chance, window=window)
    alignment_figure(runs, folder / "angles", "angle", window=window)
    alignment_figure(runs, folder / "orthonormality", "orthonormality", window=window)
    for label, run in runs.items():
        name = re.sub(r"[^\w.]+", "-", label)
        coefficients_figure(run, folder / f"coefficients-{name}", label)
