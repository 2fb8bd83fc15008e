"""The figures of learned rules over episodes: loss and accuracy, coefficients, alignment.

A run is given by the columns [seeds, episodes] of `read_episodes`. Lines are medians over seeds in
98 % bootstrap intervals; in Shervani-Tabar and Rosenbaum (2023), arXiv 2210.16414, means.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tsar_jax.plots.style import GREY, new_figure, styled
from tsar_jax.systems.learned_rules.episode_curves import (
    WINDOW,
    EpisodeColumns,
    coefficient_columns,
    curve,
    layer_columns,
)
from tsar_jax.systems.learned_rules.figure_parts import (
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


@styled()
def learning_figure(
    runs: Mapping[str, EpisodeColumns],
    path: Path,
    chance: float | None = None,
    *,
    window: int = WINDOW,
) -> list[Path]:
    """Draw meta-loss and accuracy of each rule over episodes.

    Args:
        runs: columns of every rule by its name.
        path: the figure's, without suffix.
        chance: accuracy of a guess, in [0, 1]. None: it is not drawn.
        window: episodes in the moving average.

    Returns:
        The files that are written.
    """
    figure, (loss, accuracy) = new_figure(1, 2, width=7, height=3.7)
    columns_of_rules = list(runs.values())
    draw_learning(loss, accuracy, columns_of_rules, chance, window)
    for axes in (loss, accuracy):
        axes.set_xlabel("episode")
    handles = entries(list(runs))
    if chance is not None:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="chance"))
    legend_columns = 4 if max(map(len, runs)) <= 16 else 3  # as the labels' width allows
    figure.legend(handles=handles, loc="outside lower center", ncols=legend_columns)
    figure.suptitle(caption(columns_of_rules, window), fontsize=9, color="0.35")
    return write(figure, path)


@styled()
def coefficients_figure(run: EpisodeColumns, path: Path, title: str = "") -> list[Path]:
    """Draw a run's coefficients over episodes, layer by layer where each has its own.

    Args:
        path: the figure's, without suffix.
        title: the rule's name.

    Returns:
        The files that are written.
    """
    layers = len(coefficient_columns(run))
    size = (4.2, 3.1) if layers == 1 else (7.0, grid_height(layers))
    figure = Figure(figsize=size, layout="constrained")
    draw_coefficients(figure, run)
    figure.suptitle("\n".join([*filter(None, [wrapped(title, 50)]), caption([run])]), fontsize=9)
    return write(figure, path)


@styled()
def alignment_figure(
    runs: Mapping[str, EpisodeColumns],
    path: Path,
    what: Literal["angle", "orthonormality"],
    *,
    window: int = WINDOW,
) -> list[Path]:
    """Draw angles in degrees, or orthonormality errors, of each rule, layer by layer.

    Args:
        runs: columns of every rule by its name; the networks are of the same depth.
        path: the figure's, without suffix.
        what: the measure that is drawn.
        window: episodes in the moving average.

    Returns:
        The files that are written.
    """
    columns_of_rules = list(runs.values())
    layers = layer_columns(columns_of_rules[0], what)
    draw = draw_angles if what == "angle" else draw_orthonormality
    figure = Figure(figsize=(7, grid_height(len(layers))), layout="constrained")
    names = {"angle": "angle (degrees)", "orthonormality": "orthonormality error"}
    panels = cells_and_legend(
        figure, len(layers), entries(list(runs)), names[what], sharey=what == "angle"
    )
    for axes, (layer, column) in zip(panels, layers.items(), strict=True):
        draw(
            axes, {place: curve(run, column, window) for place, run in enumerate(columns_of_rules)}
        )
        axes.set_title(f"layer {layer}" + (", the input" if layer == 0 else ""), fontsize=10)
    figure.suptitle(caption(columns_of_rules, window), fontsize=9, color="0.35")
    return write(figure, path)


@styled()
def episodes_figure(
    run: EpisodeColumns, path: Path, chance: float | None = None, *, window: int = WINDOW
) -> list[Path]:
    """Draw a run: meta-loss, accuracy, angles and orthonormality errors by layer, coefficients.

    Args:
        path: the figure's, without suffix.
        chance: accuracy of a guess, in [0, 1]. None: it is not drawn.
        window: episodes in the moving average.

    Returns:
        The files that are written.
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
    runs: Mapping[str, EpisodeColumns], folder: Path, chance: float, *, window: int = WINDOW
) -> None:
    """Write every figure that compares rules, and one of each rule's coefficients.

    Args:
        runs: columns of every rule by its name; the networks are of the same depth.
        folder: folder of the figures.
        chance: accuracy of a guess, in [0, 1].
        window: episodes in the moving average.
    """
    learning_figure(runs, folder / "learning", chance, window=window)
    alignment_figure(runs, folder / "angles", "angle", window=window)
    alignment_figure(runs, folder / "orthonormality", "orthonormality", window=window)
    for label, run in runs.items():
        name = re.sub(r"[^\w.]+", "-", label)
        coefficients_figure(run, folder / f"coefficients-{name}", label)
