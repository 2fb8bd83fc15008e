"""The spread of a result over its runs, for ± in tables and for bands in figures.

A result's table and its figure take the same function, `confidence_band` or `deviation_band`, so
that they show the same numbers. A band is clipped to the quantity's range, such as 0 to 1 for a
proportion. Fewer than `FEWEST` runs have no band: then the values themselves are shown.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

FEWEST = 3
"""Smallest number of runs with a band; of fewer the values are shown, for an interval estimated
from two says little.
"""

Limits = tuple[float, float]
PROPORTION: Limits = (0.0, 1.0)
PERCENT: Limits = (0.0, 100.0)
UNBOUNDED: Limits = (-np.inf, np.inf)

CONFIDENCE = "95 % confidence interval of the mean"
DEVIATION = "standard deviation"


class Band(NamedTuple):
    """A mean over runs [...] and the ends of its band [...]; ends are NaN where there is none."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class BandOf(Protocol):
    """A function from values [runs, ...] to a band within limits."""

    def __call__(self, values: np.ndarray, limits: Limits = ...) -> Band: ...


def confidence_band(values: np.ndarray, limits: Limits = PROPORTION) -> Band:
    """Return the mean over runs and its 95 % confidence interval (Student's t), within limits.

    Args:
        values: float [runs, ...]; NaN where a run is lost, which leaves it out.
        limits: range of the quantity.
    """
    return _band(values, confidence_half_width(values), limits)


def deviation_band(values: np.ndarray, limits: Limits = UNBOUNDED) -> Band:
    """Return the mean over runs and one sample standard deviation to either side, within limits.

    Args:
        values: float [runs, ...]; NaN where a run is lost, which leaves it out.
        limits: range of the quantity.
    """
    return _band(values, _deviation(np.asarray(values, float), 1), limits)


def lifetimes_band(values: np.ndarray, limits: Limits = UNBOUNDED) -> Band:
    """Return the mean over lifetimes and their standard deviation to either side, within limits.

    The deviation is that of these lifetimes themselves (divided by n), as in a run's metric
    `fitness_std`, not an estimate for all lifetimes.

    Args:
        values: float [lifetimes, ...]; NaN where one is lost, which leaves it out.
        limits: range of the quantity.
    """
    return _band(values, _deviation(np.asarray(values, float), 0), limits)


def confidence_half_width(values: np.ndarray | Sequence[float]) -> np.ndarray:
    """Return half the width [...] of the 95 % confidence interval of a mean over runs [runs, ...].

    NaN is left out; with fewer than two values the width is NaN.
    """
    from scipy.stats import t

    runs = np.asarray(values, float)
    count = np.isfinite(runs).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return t.ppf(0.975, count - 1) * _deviation(runs, 1) / np.sqrt(count)


def finite_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean [...] over runs [runs, ...] that are not lost; NaN where none is left."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(0) / known.sum(0)


def _deviation(values: np.ndarray, ddof: int) -> np.ndarray:
    """Return the standard deviation [...] of finite values; NaN where none is left."""
    known = np.isfinite(values)
    count = known.sum(0)
    mean = finite_mean(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = np.where(known, values - mean, 0) ** 2
        return np.where(count > ddof, np.sqrt(squares.sum(0) / (count - ddof)), np.nan)


def _band(values: np.ndarray, half_width: np.ndarray, limits: Limits) -> Band:
    values = np.asarray(values, float)
    mean = finite_mean(values)
    half_width = np.where(np.isfinite(values).sum(0) < FEWEST, np.nan, half_width)
    return Band(mean, *(np.clip(mean + sign * half_width, *limits) for sign in (-1, 1)))


def spread_text(
    values: np.ndarray | Sequence[float],
    band_of: BandOf,
    limits: Limits,
    form: Callable[[float], str],
) -> str:
    """Return runs' values as text for a table.

    "85.01 ± 1.90"; "0.50 (0.00 to 0.98)" where a limit cuts the band; of fewer than three runs the
    values, "0.48, 0.52", once where they are equal. Lost runs, whose value is NaN, are counted:
    "85.01 ± 1.90 (1 of 5 lost)".

    Args:
        values: float [runs].
        band_of: the function of this module that the result's figure uses, as `confidence_band`.
        limits: range of the quantity.
        form: function from a number to its text.
    """
    runs = np.asarray(values, float)
    known = runs[np.isfinite(runs)]
    lost = f" ({len(runs) - len(known)} of {len(runs)} lost)" if len(known) < len(runs) else ""
    if len(known) < FEWEST:
        return (", ".join(dict.fromkeys(map(form, known.tolist()))) or "–") + lost
    mean, low, high = map(float, band_of(known, limits))
    if low <= limits[0] < mean or mean < limits[1] <= high:
        return f"{form(mean)} ({form(low)} to {form(high)}){lost}"
    return f"{form(mean)} ± {form(high - mean).lstrip('+')}{lost}"
