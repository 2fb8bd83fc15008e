"""The tail of a histogram as a power law, by maximum likelihood.

Clauset, Shalizi and Newman (2009), arXiv 0706.1062: a least-squares line on log-log axes is biased,
and is ruled by the bins that hold nearly nothing. For binned data: Virkar and Clauset (2014),
arXiv 1208.3524.
"""

from typing import NamedTuple

import numpy as np

MIN_BINS, MIN_COUNTS = 10, 50
"""Least numbers of filled bins and of observations in a tail."""
CANDIDATES = 60
"""Number of lower ends of the tail that are tried, spread over decades."""
MAX_EXPONENT = 50.0
"""Bound of the exponent's absolute value in the search, far beyond that of any tail with as many
bins."""


class Tail(NamedTuple):
    """The density x^-exponent from xmin to 1; every field is NaN where there is no tail to fit.

    exponent: the fitted one.
    xmin: lower end of the tail, in (0, 1).
    share: share of the observations above 0 that lie in the tail, in [0, 1].
    distance: Kolmogorov-Smirnov distance between the tail's observations and the fitted law, in
        [0, 1].
    """

    exponent: float
    xmin: float
    share: float
    distance: float


NO_TAIL = Tail(*[float("nan")] * 4)


def fit_tail(counts: np.ndarray) -> Tail:
    """Return the power law that fits the upper end of a histogram of values within 0..1.

    The tail begins where the distance between observations and law is smallest.

    Args:
        counts: observations in equal bins of [0, 1], [bins]; the first bin, which holds 0, is never
            in the tail.
    """
    edges = np.linspace(0, 1, counts.size + 1)
    positive = counts[1:].sum()
    fits = []
    for first in _lower_ends(counts):
        tail = counts[first:].astype(float)
        exponent = _most_likely(tail, edges[first:])
        expected = _cumulative(exponent, edges[first:])
        distance = np.abs(np.cumsum(tail) / tail.sum() - expected).max()
        share = float(tail.sum() / positive)
        fits.append(Tail(exponent, float(edges[first]), share, float(distance)))
    return min(fits, key=lambda fit: fit.distance, default=NO_TAIL)


def _lower_ends(counts: np.ndarray) -> list[int]:
    """Return the bins at which a tail with enough bins and observations may begin."""
    filled = np.cumsum((counts > 0)[::-1])[::-1]
    left = np.cumsum(counts[::-1])[::-1]
    possible = np.flatnonzero((filled >= MIN_BINS) & (left >= MIN_COUNTS) & (counts > 0))
    possible = possible[possible > 0]
    if not possible.size:
        return []
    places = np.geomspace(1, possible.size, min(CANDIDATES, possible.size)).round().astype(int)
    return possible[np.unique(places) - 1].tolist()


def _most_likely(counts: np.ndarray, edges: np.ndarray) -> float:
    """Return the exponent of the largest likelihood of counts [bins] between edges [bins + 1]."""
    from scipy.optimize import minimize_scalar

    filled = counts > 0

    def loss(exponent: float) -> float:
        logs = _log_masses(exponent, edges)
        total = np.logaddexp.reduce(logs)
        return float(-(counts[filled] * (logs[filled] - total)).sum() / counts.sum())

    minimum = minimize_scalar(
        loss, bounds=(-MAX_EXPONENT, MAX_EXPONENT), method="bounded", options={"xatol": 1e-6}
    )
    return float(minimum.x)


def _log_masses(exponent: float, edges: np.ndarray) -> np.ndarray:
    """Return the logarithm of the integral of x^-exponent over every bin, to a common constant."""
    power = 1 - exponent
    lower, width = np.log(edges[:-1]), np.diff(np.log(edges))
    if abs(power) < 1e-9:
        return np.log(width)
    # The integral is e^(power lower) (e^(power width) - 1) / power, whatever the power's sign.
    return power * lower + np.log(np.expm1(power * width) / power)


def _cumulative(exponent: float, edges: np.ndarray) -> np.ndarray:
    """Return the law's cumulative distribution at the upper edge of every bin."""
    logs = _log_masses(exponent, edges)
    masses = np.exp(logs - logs.max())
    return np.cumsum(masses) / masses.sum()
