"""The file of a run's episodes: a table of loss, accuracy, coefficients and alignment."""

import csv
import io
import warnings
from pathlib import Path

import numpy as np

from tsar_jax.errors import UserError, quoted
from tsar_jax.systems.learned_rules.system import (
    LearnedRuleConfig,
    columns,
    record_shapes,
)
from tsar_jax.training.arrays import StepArrays
from tsar_jax.training.run import write_atomically

EPISODES = "episodes.csv"
"""Name of the file in a run's folder."""


def write_episodes(path: Path, config: LearnedRuleConfig, arrays: StepArrays) -> Path:
    """Write RUN/episodes.csv, a row for each episode and seed, and return its path.

    Columns are episode (from 1), seed (from 0), loss, accuracy, a theta for each term (and layer),
    the angle for each layer in degrees and the orthonormality for each layer; nan where a lifetime
    diverged or a seed had been lost.

    Args:
        path: folder of the run.
        config: the run's.
        arrays: arrays of the run's steps, [seeds, episodes, ...] or, with one seed,
            [episodes, ...].
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
    """Return the columns of RUN/episodes.csv, each [seeds, episodes].

    Lines that are no rows, and rows that repeat another's episode and seed, are left out with a
    warning; values that are absent are nan, as those of a lost seed.

    Args:
        path: folder of the run.

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
    # Where fewer than half of the rows can be read, those that can are not to be trusted either.
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
    """Return a row's numbers, episode (from 1) and seed (from 0) first.

    None stands for a line that is no row.
    """
    try:
        row = np.array(line.split(","), float)
    except ValueError:
        return None
    if len(row) != width or not (row[:2] >= (1, 0)).all() or (row[:2] % 1).any():
        return None
    return row
