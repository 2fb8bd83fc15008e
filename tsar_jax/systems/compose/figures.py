"""Figures of compared compositions."""

from pathlib import Path

import numpy as np

from tsar_jax.evaluation.spread import PROPORTION, confidence_band
from tsar_jax.plots.bands import draw_bars
from tsar_jax.plots.style import BLACK, bar_look, new_figure, save_figure, styled
from tsar_jax.systems.compose.comparison import Choices, Scores, levels, sizes_of

NAMES = {
    "sgd": "SGD",
    "adam": "Adam",
    "rule": "learned rule",
    "feedback_alignment": "feedback alignment",
    "hebbian": "Hebbian rule",
    "none": "no modulation",
    "activations": "gated activations",
    "weights": "regulated weights",
    "layers": "a signal per layer",
    "updates": "a signal per synapse",
    "gradient": "gradient",
    "openai_es": "evolution",
    "pes": "evolution in parts",
}
"""Names of choices for people; others are shown as they are."""


@styled()
def accuracy_figure(scores: Scores, chance: float, path: Path) -> Path:
    """Draw accuracies as bars: a panel for each number of classes, a colour for each modulation.

    Args:
        scores: of compositions.
        chance: accuracy of guessing among all outputs.
        path: without suffix.

    Returns:
        The PNG's path; there is a PDF beside it.
    """
    sizes, modulations = sizes_of(scores), levels(scores, "modulation")
    groups = list(dict.fromkeys((c.learner, c.meta_optimiser) for c in scores))
    figure, axes = new_figure(len(sizes), 1, width=7.0, height=1.2 + 2.2 * len(sizes))
    width = 0.8 / len(modulations)
    for size, axis in zip(sizes, np.atleast_1d(axes), strict=True):
        for place, modulation in enumerate(modulations):
            runs = {
                number: scores[choices][size]
                for number, (learner, meta) in enumerate(groups)
                if (choices := Choices(learner, modulation, meta)) in scores
            }
            middles = np.asarray(list(runs)) + (place - (len(modulations) - 1) / 2) * width
            label = NAMES.get(modulation, modulation) if size == sizes[0] else None
            draw_bars(
                axis,
                middles,
                list(runs.values()),
                width,
                confidence_band,
                PROPORTION,
                label=label,
                **bar_look(place),
            )
        guessing = "guessing" if size == sizes[0] else None
        axis.axhline(chance, color=BLACK, linewidth=0.8, linestyle=":", label=guessing)
        axis.set(title=f"{size} unseen classes", ylabel="accuracy", ylim=(0, None))
        names = [f"{NAMES.get(name, name)},\n{NAMES.get(meta, meta)}" for name, meta in groups]
        axis.set_xticks(range(len(groups)), names)
        axis.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=3)
    return save_figure(figure, path)[0]
