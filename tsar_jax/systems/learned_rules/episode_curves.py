"""Episodes of learned plasticity rules over seeds: medians, their intervals, moving averages.

A run is what `read_episodes` gives: columns [seeds, episodes] by name.
"""

import re
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Run = Mapping[str, np.ndarray]
"""Columns of RUN/episodes.csv, each [seeds, episodes]."""

WINDOW = 10
"""Episodes in a moving average, as published."""
RESAMPLES = 500
"""Resamples of the seeds, of which an interval is made."""
INTERVAL = (1, 99)
"""Percentiles between which 98 % lie."""

THETA = re.compile(r"(?:layer_(\d+)_)?theta_(.+)")
"""Names of the columns of coefficients: layer, where each has its own, and term."""


class Curve(NamedTuple):
    """A median over seeds and the ends of its 98 % interval, of equal shapes."""

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
        warnings.simplefilter("ignore", RuntimeWarning)  # of points at which all seeds are lost
        low, high = np.nanpercentile(resampled, INTERVAL, axis=0)
    return Curve(medians(known), low, high)


def medians(values: np.ndarray) -> np.ndarray:
    """Return the median [...] over the first axis [n, ...], without NaN; NaN where all are."""
    ordered = np.sort(values, axis=0)  # NaN come last
    count = np.isfinite(values).sum(0)
    middle = [np.maximum(at, 0)[None] for at in ((count - 1) // 2, count // 2)]
    middle[1] = np.minimum(middle[1], len(values) - 1)
    lower, upper = (np.take_along_axis(ordered, at, 0)[0] for at in middle)
    return (lower + upper) / 2


def lost_seeds(run: Run) -> int:
    """Return how many seeds of a run are lost: whose loss or a coefficient ends as no number."""
    names = [name for name in run if name == "loss" or THETA.fullmatch(name)]
    return int(np.any([~np.isfinite(run[name][:, -1]) for name in names], axis=0).sum())


def seed_count(run: Run) -> int:
    """Return how many seeds a run has."""
    return len(run["loss"])


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of the `window` episodes around each, fewer at the ends: [..., episodes]."""
    around = [(0, 0)] * (values.ndim - 1) + [(window // 2, window - window // 2 - 1)]
    padded = np.pad(values, around, constant_values=np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a lost seed's episodes
        return np.nanmean(np.lib.stride_tricks.sliding_window_view(padded, window, -1), -1)


def curve(run: Run, column: str, window: int = WINDOW) -> Curve:
    """Return a column over episodes as it is drawn, [episodes], from seeds [seeds, episodes].

    Args:
        window: episodes in the moving average, at least 1; a coefficient is drawn as it is.
    """
    drawn_as_it_is = THETA.fullmatch(column)
    return bootstrap(run[column] if drawn_as_it_is else smoothed(run[column], window))


def layer_columns(run: Run, what: str) -> dict[int, str]:
    """Return the columns of what every layer has, by layer.

    Without the output layer's angle, which is always 0.
    """
    found = [re.fullmatch(rf"layer_(\d+)_{what}", column) for column in run]
    columns = {int(match[1]): match[0] for match in found if match}
    if what == "angle":
        del columns[max(columns)]
    return columns


def coefficient_columns(run: Run) -> dict[int, dict[str, str]]:
    """Return the columns of coefficients by layer and term.

    Layer 0 stands for all where they share them.
    """
    columns: dict[int, dict[str, str]] = {}
    for match in filter(None, map(THETA.fullmatch, run)):
        columns.setdefault(int(match[1] or 0), {})[match[2]] = match[0]
    return columns
