"""Lines and bars of results over several runs, with the same bands as in their tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tsar_jax.evaluation.spread import FEWEST, Band, BandOf, Limits


def draw_line(
    axes: Axes,
    x: Sequence[float] | np.ndarray,
    values: np.ndarray,
    band_of: BandOf,
    limits: Limits,
    look: Mapping[str, Any],
    **line: Any,
) -> None:
    """Draw the mean over runs as a line with its band; dots for the runs where they are few.

    Args:
        axes: the axes to draw on.
        x: [points].
        values: [runs, points], NaN where a run is lost.
        band_of: function from runs to a band, the same as in the result's table.
        limits: range of the quantity.
        look: Matplotlib's settings of the line's look, with its "color".
        line: further settings of the line, such as its label.
    """
    values = np.asarray(values, float)
    band = band_of(values, limits)
    axes.plot(x, band.mean, **look, **line)
    if np.isfinite(band.low).any():
        axes.fill_between(x, band.low, band.high, color=look["color"], alpha=0.2, linewidth=0)
    known = np.isfinite(values).sum(0)
    if ((known > 1) & (known < FEWEST)).any():
        few = np.where(known < FEWEST, values, np.nan)
        dots: dict[str, Any] = {"linestyle": "none", "marker": ".", "markersize": 4}
        axes.plot(x, few.T, color=look["color"], alpha=0.6, **dots)


def draw_bars(
    axes: Axes,
    x: Sequence[float] | np.ndarray,
    values: Sequence[np.ndarray],
    width: float,
    band_of: BandOf,
    limits: Limits,
    **look: Any,
) -> None:
    """Draw means over runs as bars with their bands; dots for the runs where they are few.

    Args:
        axes: the axes to draw on.
        x: [bars], the bars' middles.
        values: for each bar [runs], NaN where a run is lost.
        width: width of a bar.
        band_of: function from runs to a band, the same as in the result's table.
        limits: range of the quantity.
        look: Matplotlib's settings of the bars, such as colour, hatch and label.
    """
    bands = [band_of(np.asarray(runs, float), limits) for runs in values]
    means, lows, highs = (
        np.array([float(getattr(band, name)) for band in bands]) for name in Band._fields
    )
    errors = np.array([means - lows, highs - means]) if np.isfinite(lows).any() else None
    axes.bar(x, means, width, yerr=errors, error_kw={"linewidth": 1, "capsize": 3}, **look)
    for middle, runs in zip(x, values, strict=True):
        known = np.asarray(runs)[np.isfinite(runs)]
        if 1 < len(known) < FEWEST:
            axes.plot([middle] * len(known), known, "k.", markersize=5)
