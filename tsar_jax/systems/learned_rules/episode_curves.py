"""Curves of learned rules over episodes: medians over seeds, their intervals, moving averages.

A run is given by the columns [seeds, episodes] of `read_episodes`.
"""

import re
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

EpisodeColumns = Mapping[str, np.ndarray]
"""Columns of RUN/episodes.csv by name, each [seeds, episodes]."""

WINDOW = 10
"""Episodes in a moving average, as published."""
RESAMPLES = 500
"""Bootstrap resamples of the seeds, whose medians make an interval."""
INTERVAL = (1, 99)
"""Percentiles at the ends of an interval of 98 %."""

THETA = re.compile(r"(?:layer_(\d+)_)?theta_(.+)")
"""Pattern of the names of coefficients' columns: layer, where each has its own, and term."""


class Curve(NamedTuple):
    """A median over seeds and the ends of its 98 % interval, arrays of equal shapes."""

    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bootstrap(values: np.ndarray, seed: int = 0) -> Curve:
    """Return the median over seeds and its percentile bootstrap interval.

    One lost seed moves a median little, where it throws a mean off the axis. A value that is not
    finite is left out; `lost_seeds` counts the seeds that have one.

    Args:
        values: [seeds, ...].
        seed: of the generator of 500 resamples of the seeds, the same for every other index.

    Returns:
        Median and ends, each [...]; NaN where every seed is lost.
    """
    seeds = len(values)
    drawn = np.random.default_rng(seed).integers(seeds, size=(RESAMPLES, seeds))
    known = np.where(np.isfinite(values), values, np.nan)
    resampled = medians(np.moveaxis(known[drawn], 1, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # points at which all seeds are lost
        low, high = np.nanpercentile(resampled, INTERVAL, axis=0)
    return Curve(medians(known), low, high)


def medians(values: np.ndarray) -> np.ndarray:
    """Return the median [...] over the first axis [n, ...], ignoring NaN; NaN where all are NaN."""
    ordered = np.sort(values, axis=0)  # NaN come last
    count = np.isfinite(values).sum(0)
    middle = [np.maximum(index, 0)[None] for index in ((count - 1) // 2, count // 2)]
    middle[1] = np.minimum(middle[1], len(values) - 1)
    lower, upper = (np.take_along_axis(ordered, index, 0)[0] for index in middle)
    return (lower + upper) / 2


def lost_seeds(run: EpisodeColumns) -> int:
    """Return how many seeds of a run are lost: their last loss or a coefficient is not finite."""
    names = [name for name in run if name == "loss" or THETA.fullmatch(name)]
    return int(np.any([~np.isfinite(run[name][:, -1]) for name in names], axis=0).sum())


def seed_count(run: EpisodeColumns) -> int:
    """Return how many seeds a run has."""
    return len(run["loss"])


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean over the `window` episodes around each, fewer at the ends [..., episodes]."""
    around = [(0, 0)] * (values.ndim - 1) + [(window // 2, window - window // 2 - 1)]
    padded = np.pad(values, around, constant_values=np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # episodes of a lost seed
        return np.nanmean(np.lib.stride_tricks.sliding_window_view(padded, window, -1), -1)


def curve(run: EpisodeColumns, column: str, window: int = WINDOW) -> Curve:
    """Return a column's median over seeds with its interval, as it is drawn: each [episodes].

    Args:
        window: episodes in the moving average, at least 1; a coefficient is drawn as it is.
    """
    drawn_as_it_is = THETA.fullmatch(column)
    return bootstrap(run[column] if drawn_as_it_is else smoothed(run[column], window))


def layer_columns(run: EpisodeColumns, measure: str) -> dict[int, str]:
    """Return the names of a measure's columns by layer.

    The output layer's angle is left out, since it is always 0.

    Args:
        measure: angle or orthonormality.
    """
    matches = [re.fullmatch(rf"layer_(\d+)_{measure}", column) for column in run]
    columns = {int(match[1]): match[0] for match in matches if match}
    if measure == "angle":
        del columns[max(columns)]
    return columns


def coefficient_columns(run: EpisodeColumns) -> dict[int, dict[str, str]]:
    """Return the names of coefficients' columns by layer and term.

    Layer 0 stands for all layers where they share the coefficients.
    """
    columns: dict[int, dict[str, str]] = {}
    for match in filter(None, map(THETA.fullmatch, run)):
        columns.setdefault(int(match[1] or 0), {})[match[2]] = match[0]
    return columns
