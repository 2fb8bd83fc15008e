"""Lines and bars of results over several runs, with the bands that their tables have too."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tsar_jax.evaluation.spread import FEWEST, BandOf, Limits


def draw_line(
    axes: Axes,
    x: Sequence[float] | np.ndarray,
    values: np.ndarray,
    band_of: BandOf,
    limits: Limits,
    look: Mapping[str, Any],
    **line: Any,
) -> None:
    """Draw the mean over runs as a line in its band; of fewer than three runs, dots for each.

    Args:
        axes: to draw on.
        x: [points].
        values: [runs, points], NaN where a run is lost.
        band_of: how runs become a band, as in the result's table.
        limits: between which the quantity lies.
        look: of the line, with its "color".
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
    """Draw means over runs as bars with their bands; of fewer than three runs, dots for each.

    Args:
        axes: to draw on.
        x: [bars], their middles.
        values: of each bar, [runs], NaN where a run is lost.
        width: of a bar.
        band_of: how runs become a band, as in the result's table.
        limits: between which the quantity lies.
        look: of the bars, such as colour, hatch and label.
    """
    bands = [band_of(np.asarray(runs, float), limits) for runs in values]
    means = np.array([float(band.mean) for band in bands])
    lows, highs = (np.array([float(getattr(b, end)) for b in bands]) for end in ("low", "high"))
    errors = np.array([means - lows, highs - means]) if np.isfinite(lows).any() else None
    axes.bar(x, means, width, yerr=errors, error_kw={"linewidth": 1, "capsize": 3}, **look)
    for place, runs in zip(x, values, strict=True):
        known = np.asarray(runs)[np.isfinite(runs)]
        if 1 < len(known) < FEWEST:
            axes.plot([place] * len(known), known, "k.", markersize=5)
