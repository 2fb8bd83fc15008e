"""How every figure looks, and how it is written: fonts, colours, PNG and PDF.

    with styled():
        figure, (left, right) = new_figure(1, 2, width=7, height=3)
        left.plot(...)
    save_figure(figure, run.figures / "name")

Figures are objects, not pyplot's global state, so none needs a screen or outlives its use.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tsar_jax.atomic import replacing

# Okabe and Ito (2008): told apart with every common kind of colour blindness.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
GREY = "#999999"
BLACK = "#000000"
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, GREY, BLACK)

COLOUR_MAP = "viridis"
MARKERS = "os^Dv<>P*Xph"
HATCHES = "/.x\\o+*-|O"

PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
"""Formatter of ticks on logarithmic axes: 0.01 instead of a power of ten."""


def dashes(round_: int) -> Any:
    """Return the line style of lines that share a colour: another one for every round."""
    if round_ < 2:
        return ("-", "--")[round_]
    return (0, (6, 2) + (1, 2) * (round_ - 1))  # a dash, then ever more dots


def look(place: int, colours: Sequence[str] = PALETTE) -> dict[str, Any]:
    """Return colour and line style of the line at a place: no two places look alike.

    Args:
        place: from 0.
        colours: to take in turn; once all are used, the line style changes.
    """
    return {"color": colours[place % len(colours)], "linestyle": dashes(place // len(colours))}


def dot_look(place: int) -> dict[str, Any]:
    """Return colour and marker of the dots at a place: no two places look alike."""
    round_ = place // len(PALETTE)
    marker = MARKERS[round_] if round_ < len(MARKERS) else f"${round_}$"
    return {"color": PALETTE[place % len(PALETTE)], "marker": marker}


def bar_look(place: int) -> dict[str, Any]:
    """Return colour and hatching of the bars at a place: no two places look alike."""
    round_ = place // len(PALETTE)
    drawn: dict[str, Any] = {"color": PALETTE[place % len(PALETTE)]}
    if round_:
        density, kind = divmod(round_ - 1, len(HATCHES))
        drawn |= {"hatch": HATCHES[kind] * (2 + density), "edgecolor": "white", "linewidth": 0}
    return drawn


STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "image.cmap": COLOUR_MAP,
    "pdf.fonttype": 42,  # text stays text in an editor
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """The style, for as long as a figure is drawn: with styled(), or @styled() on a function."""
    with matplotlib.rc_context(STYLE):
        yield


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float, height: float, **subplots: Any
) -> tuple[Figure, Any]:
    """A figure of width x height inches, and its axes as `Figure.subplots` gives them."""
    with styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, **subplots)


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Writes path.png and path.pdf and returns them; path has no suffix.

    A reader or a crash sees the old file or the new. The same figure gives the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    unstamped: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None},
    }
    for suffix, metadata in unstamped.items():
        target = path.with_name(f"{path.name}.{suffix}")
        with styled(), replacing(target) as file:
            figure.savefig(file, format=suffix, dpi=200, metadata=metadata)
        written.append(target)
    return written
