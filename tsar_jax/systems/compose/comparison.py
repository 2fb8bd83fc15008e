"""Compositions compared by three of their choices: tables of accuracy, and what a choice buys."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsar_jax.errors import UserError, shown
from tsar_jax.evaluation.spread import PROPORTION, UNBOUNDED, confidence_band, spread_text
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.streams import ImageStream, find_stream
from tsar_jax.training.loop import LoopConfig


class Choices(NamedTuple):
    """The choices that tell compositions apart; runs of the same ones are repetitions."""

    learner: str
    modulation: str
    meta_optimiser: str


Scores = dict[Choices, dict[int, np.ndarray]]
"""Accuracy of each repetition [runs], by choices and number of classes of a lifetime."""

NOTE = "± is the 95 % confidence interval of the mean over runs"

SHARED = (
    *("stream", "classes", "learn", "query", "outputs", "pixels", "remember", "repeat_first"),
    *("network", "encoder", "channels", "hidden", "units", "beta", "initial"),
    *("modulator_encoder", "modulator_channels"),
)
"""Settings that all compositions have in common; the others belong to one of the choices."""


def check_comparable(configs: Mapping[Path, ComposeConfig], sizes: Iterable[int]) -> None:
    """Check that runs may be compared in lifetimes of these numbers of classes.

    Raises:
        UserError: a run's evaluations have no unseen classes, or fewer than asked for; or runs
            differ in what they should share, those of the same choices in anything but their seed.
    """
    for path, config in configs.items():
        stream = find_stream(config)
        if not isinstance(stream, ImageStream) or not stream.unseen:
            raise UserError(
                f"{path} is on {config.stream}, whose evaluations have no unseen classes of any "
                "number: name runs on characters or episodes."
            )
        if max(sizes) > stream.outputs:
            raise UserError(
                f"A lifetime of {max(sizes)} classes is asked for, but {path} has "
                f"{stream.outputs} outputs: ask for at most as many classes."
            )
    (first, one), *others = configs.items()
    repeated = {choices_of(one): first}
    for path, config in others:
        _check_same(SHARED, first, one, path, config)
        other = repeated.setdefault(choices_of(config), path)
        _check_same(SETTINGS, other, configs[other], path, config)


SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(ComposeConfig)
    if field.name == "steps" or field.name not in {f.name for f in dataclasses.fields(LoopConfig)}
)
"""Settings in which repetitions are alike: all but the seed, and how often things are written."""


def _check_same(
    names: Iterable[str], first: Path, one: ComposeConfig, path: Path, config: ComposeConfig
) -> None:
    """Raise UserError where two runs differ in one of some settings."""
    for name in names:
        mine, theirs = getattr(config, name), getattr(one, name)
        if mine != theirs:
            raise UserError(
                f"{name} is {shown(mine)} in {path}, but {shown(theirs)} in {first}: compare runs "
                "that differ in learner, modulation, meta-optimiser and what belongs to these "
                "alone, and repetitions that differ in their seed alone."
            )


def choices_of(config: ComposeConfig) -> Choices:
    """Return the choices of a config."""
    return Choices(config.learner, config.modulation, config.meta_optimiser)


def levels(scores: Scores, choice: str) -> list[str]:
    """Return the names that a choice takes, in the order in which they appear."""
    return list(dict.fromkeys(getattr(choices, choice) for choices in scores))


def sizes_of(scores: Scores) -> list[int]:
    """Return the numbers of classes, in the order in which they appear."""
    return list(next(iter(scores.values())))


def accuracy_table(scores: Scores) -> str:
    """Return a Markdown table of accuracies, with a row for each composition."""
    sizes = sizes_of(scores)
    lines = [
        f"| learner | modulation | meta-optimiser | runs | {' | '.join(map(_classes, sizes))} |",
        "|---" * (4 + len(sizes)) + "|",
    ]
    for choices, by_size in scores.items():
        cells = [
            spread_text(by_size[size], confidence_band, PROPORTION, lambda v: f"{v:.3f}")
            for size in sizes
        ]
        runs = len(by_size[sizes[0]])
        lines.append(f"| {' | '.join(choices)} | {runs} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{NOTE}.", ""])


def differences(scores: Scores, choice: str, level: str, size: int) -> np.ndarray:
    """Return what a level of a choice adds to accuracy, in pairs that differ in nothing else.

    A pair is two compositions, one with this level and one with the choice's first name.

    Args:
        scores: of all compositions.
        choice: a field of `Choices`.
        level: one of its names.
        size: number of classes.

    Returns:
        The differences of the means over runs, [pairs].
    """
    first = levels(scores, choice)[0]
    gains = []
    for choices, by_size in scores.items():
        other = choices._replace(**{choice: first})
        if getattr(choices, choice) == level and other in scores:
            gains.append(by_size[size].mean() - scores[other][size].mean())
    return np.asarray(gains)


def gains_table(scores: Scores) -> str:
    """Return a Markdown table of what each level of each choice adds to accuracy.

    Choices of one level alone, and levels without a pair, have no row.
    """
    sizes = sizes_of(scores)
    lines = [
        f"| choice | of | instead of | pairs | {' | '.join(map(_classes, sizes))} |",
        "|---" * (4 + len(sizes)) + "|",
    ]
    for choice in Choices._fields:
        first, *others = levels(scores, choice)
        for level in others:
            gains = [differences(scores, choice, level, size) for size in sizes]
            if not gains[0].size:
                continue
            cells = [
                spread_text(gain, confidence_band, UNBOUNDED, lambda v: f"{v:+.3f}")
                for gain in gains
            ]
            names = f"{choice.replace('_', '-')} | {level} | {first}"
            lines.append(f"| {names} | {len(gains[0])} | {' | '.join(cells)} |")
    note = (
        "Pairs of compositions differ in this choice, and what belongs to it, alone. "
        "± is the 95 % confidence interval of the mean over pairs."
    )
    return "\n".join([*lines, "", note, ""])


def lifetime_rows(
    choices: Choices, run: str, size: int, seeds: Sequence[int], accuracy: np.ndarray
) -> list[list[str]]:
    """Return rows of a table of all lifetimes, `COLUMNS`.

    Args:
        choices: of the composition.
        run: name of the run's folder.
        size: number of classes.
        seeds: the run's seeds that are not lost.
        accuracy: of each of them and each lifetime, [seeds, lifetimes].
    """
    return [
        [*choices, run, str(seed), str(size), str(lifetime), f"{value:.6f}"]
        for seed, of_seed in zip(seeds, accuracy, strict=True)
        for lifetime, value in enumerate(of_seed)
    ]


COLUMNS: Sequence[str] = (
    *Choices._fields,
    *("run", "seed", "classes", "lifetime", "accuracy"),
)
"""Columns of the table of all lifetimes."""


def _classes(size: int) -> str:
    return f"{size} classes"
