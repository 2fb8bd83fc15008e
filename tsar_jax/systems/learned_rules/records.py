"""What meta-training of a rule leaves behind: a table of its episodes, and the rule as a file."""

import csv
import dataclasses
import io
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tsar_jax.errors import UserError, quoted, shown
from tsar_jax.networks.feedback_network import Feedback
from tsar_jax.systems.learned_rules.system import (
    LearnedRuleConfig,
    columns,
    record_shapes,
)
from tsar_jax.training.arrays import StepArrays
from tsar_jax.training.run import write_atomically
from tsar_jax.training.seeds import lost_seeds, stack_seeds
from tsar_jax.untrusted.files import read_json

EPISODES, RULE = "episodes.csv", "rule.json"
FORMAT = 1
MAX_RULE = 1 << 20
"""Bytes of a rule's file that is read."""


def write_episodes(path: Path, config: LearnedRuleConfig, arrays: StepArrays) -> Path:
    """Write RUN/episodes.csv, a row per episode and seed, and return its path.

    Columns: episode (from 1), seed (from 0), loss, accuracy, a theta per term (and layer), the
    angle per layer in degrees and the orthonormality per layer; nan where a lifetime diverged or a
    seed had been lost.

    Args:
        path: the run's folder.
        config: the run's.
        arrays: what its steps returned, [seeds, episodes, ...] or, of one seed, [episodes, ...].
    """
    table: dict[str, np.ndarray] = {}
    for name, shape in record_shapes(config).items():
        record = arrays.values[name] if config.seeds > 1 else arrays.values[name][None]
        record = np.moveaxis(record, (0, 1), (-2, -1))
        record = np.where(np.isfinite(record), record, np.nan)
        for column, index in columns(config, name, shape):
            table[column] = record[index]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["episode", "seed", *table])
    for place, episode in enumerate(arrays.steps):
        for seed in range(config.seeds):
            values = (f"{column[seed, place]:.7g}" for column in table.values())
            writer.writerow([episode, seed, *values])
    write_atomically(path / EPISODES, text.getvalue())
    return path / EPISODES


def read_episodes(path: Path) -> dict[str, np.ndarray]:
    """The columns of RUN/episodes.csv, each [seeds, episodes].

    Lines that are no rows, and rows that repeat another's episode and seed, are left out with a
    warning, and what they held is nan, as of a lost seed.

    Raises:
        UserError: there is no such file, or less than half of a table in it.
    """
    file = path / EPISODES
    remedy = f"finish the run with --resume {quoted(path)}"
    try:
        # What follows the last end of a line was not written whole.
        *lines, rest = file.read_text(encoding="utf-8", errors="replace").split("\n")
        header = next(csv.reader(lines[:1]), [])
    except (OSError, csv.Error) as error:
        raise UserError(f"{file} cannot be read ({error}): {remedy}.") from error
    if header[:2] != ["episode", "seed"]:
        raise UserError(f"{file} is not a table of episodes: {remedy}.")
    rows: dict[tuple[int, int], np.ndarray] = {}
    for line in lines[1:]:
        row = _parse_row(line, len(header))
        if row is not None:
            rows.setdefault((int(row[0]), int(row[1])), row[2:])
    episodes = max((episode for episode, _ in rows), default=0)
    seeds = max((seed for _, seed in rows), default=0) + 1
    # Fewer than half, and what is there may be anything.
    if not rows or 2 * len(rows) < episodes * seeds:
        raise UserError(f"{file} is not a table of episodes: {remedy}.")
    table = np.full((len(header) - 2, seeds, episodes), np.nan)
    for (episode, seed), values in rows.items():
        table[:, seed, episode - 1] = values
    unread = len(lines) - 1 - len(rows) + bool(rest)
    absent = episodes * seeds - len(rows)
    if unread or absent:
        faults = []
        if unread:
            faults.append(f"has lines that are no rows of it or repeat another ({unread})")
        if absent:
            faults.append(f"lacks rows, which count as of lost seeds ({absent})")
        warnings.warn(f"{file} {' and '.join(faults)}: to write it anew, {remedy}.", stacklevel=2)
    return dict(zip(header[2:], table, strict=True))


def _parse_row(line: str, width: int) -> np.ndarray | None:
    """Return a line's numbers, episode (from 1) and seed (from 0) the first; None: it is no row."""
    try:
        row = np.array(line.split(","), float)
    except ValueError:
        return None
    if len(row) != width or not (row[:2] >= (1, 0)).all() or (row[:2] % 1).any():
        return None
    return row


@dataclasses.dataclass(frozen=True)
class LearnedRule:
    """A rule with its coefficients, as a file of a few lines holds it.

    coefficients: one per term, or for each layer one per term. modules: Python modules that define
    its terms. beta: sharpness of the softplus that it was learned with. held_out: how many of the
    data's last classes it has not met. source: where it is from.
    """

    terms: tuple[str, ...]
    coefficients: tuple[float, ...] | tuple[tuple[float, ...], ...]
    feedback: Feedback = "fix"
    beta: float = 10.0
    modules: tuple[str, ...] = ()
    held_out: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("terms", "modules"):
            texts = getattr(self, name)
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise UserError(f"{name} must be a list of names, but is {shown(texts)}.")
        if not isinstance(self.source, str):
            raise UserError(f"source must be a text, but is {shown(self.source)}.")
        values = np.asarray(self.coefficients, float)
        if values.shape[-1:] != (len(self.terms),) or values.ndim > 2:
            raise UserError(
                f"A rule of {len(self.terms)} terms has as many coefficients, or as many for each "
                f"layer, not an array of shape {list(values.shape)}."
            )
        if not np.isfinite(values).all():
            raise UserError("A rule's coefficients must be finite numbers.")
        if self.feedback not in ("fix", "sym", "sign"):
            raise UserError(f"feedback must be fix, sym or sign, but is {shown(self.feedback)}.")
        if type(self.held_out) is not int or self.held_out < 0:
            raise UserError(f"held_out must be a count of classes, but is {shown(self.held_out)}.")
        if type(self.beta) not in (int, float) or not 0 < self.beta < math.inf:
            raise UserError(f"beta must be positive, but is {shown(self.beta)}.")


def write_rule(path: Path, rule: LearnedRule) -> None:
    """Writes a rule as JSON."""
    content = {"format": FORMAT, **dataclasses.asdict(rule)}
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def read_rule(path: Path) -> LearnedRule:
    """A rule from its file; UserError where it is missing or not one."""
    try:
        content = read_json(path, MAX_RULE)
    except (OSError, ValueError) as error:
        raise UserError(f"The rule {path} cannot be read ({error}): check the path.") from error
    known = {field.name for field in dataclasses.fields(LearnedRule)}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f'{path} is not a rule of format {FORMAT}: write one with "format", "terms" and '
            '"coefficients", or take the rule.json of a finished run.'
        )
    unknown = sorted(set(content) - known - {"format"})
    if unknown or not {"terms", "coefficients"} <= set(content):
        wrong = (
            f"unknown entry {shown(unknown[0])}"
            if unknown
            else 'it lacks "terms" or "coefficients"'
        )
        raise UserError(f"{path} is not a rule ({wrong}): its entries are {', '.join(known)}.")
    try:
        return LearnedRule(**{k: _frozen(v) for k, v in content.items() if k != "format"})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a rule ({error}): mend it, or train anew.") from error


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def learned_rule(config: LearnedRuleConfig, state: Any, source: str) -> LearnedRule:
    """Return the mean coefficients over the seeds that are not lost, as a rule.

    Args:
        config: the run's.
        state: after its last step, of one seed or several, as `train` returns it.
        source: where the rule is from.
    """
    coefficients = np.asarray(stack_seeds(state).coefficients)
    mean = np.delete(coefficients, lost_seeds(state), axis=0).mean(0)
    return LearnedRule(
        terms=config.terms,
        coefficients=_frozen(mean.tolist()),
        feedback=config.feedback,
        beta=config.beta,
        modules=config.modules,
        held_out=config.held_out,
        source=source,
    )
