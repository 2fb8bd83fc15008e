"""The figure of rules' learning curves: accuracy and loss over updates."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tsar_jax.plots.style import GREY, new_figure, save_figure, styled
from tsar_jax.systems.learned_rules.episode_curves import bootstrap
from tsar_jax.systems.learned_rules.figure_parts import entries, look


@styled()
def learning_curves_figure(
    updates: np.ndarray,
    curves: Mapping[str, Mapping[str, np.ndarray]],
    chance: float,
    path: Path,
) -> list[Path]:
    """Draw the rules' learning curves, medians over lifetimes in 98 % bootstrap intervals.

    Args:
        updates: numbers of updates at which rules were scored [points].
        curves: "accuracy" and "loss" [runs, points] by rule.
        chance: accuracy of a guess, in [0, 1].
        path: the figure's, without suffix.

    Returns:
        The files that are written.
    """
    figure, (left, right) = new_figure(1, 2, width=7.0, height=3.2)
    for axes, measure, scale in ((left, "accuracy", 100), (right, "loss", 1)):
        for place, measured in enumerate(curves.values()):
            median, low, high = bootstrap(scale * measured[measure])
            axes.plot(updates, median, linewidth=1.4, **look(place))
            axes.fill_between(
                updates, low, high, color=look(place)["color"], alpha=0.2, linewidth=0
            )
        axes.set(xlabel="online updates", xlim=(0, updates[-1]))
        axes.grid(axis="y")
    left.axhline(100 * chance, color=GREY, linestyle=":", linewidth=1.4)
    left.set(ylabel="accuracy on other images (%)", ylim=(0, 100))
    right.set(ylabel="cross-entropy")
    runs = len(next(iter(curves.values()))["accuracy"])
    finite = [np.isfinite(measured["loss"][:, -1]) for measured in curves.values()]
    count = int(sum((~ends).sum() for ends in finite))
    lost = f"; {count} of {sum(map(len, finite))} lost" if count else ""
    figure.suptitle(
        f"median over {runs} lifetimes in its 98 % bootstrap interval{lost}; dotted: chance",
        fontsize=9,
        color="0.35",
    )
    figure.legend(handles=entries(list(curves)), loc="outside lower center", ncols=4)
    return save_figure(figure, path)
