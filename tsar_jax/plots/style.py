"""The style of all figures, and their files: fonts, colours, PNG and PDF.

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

# The palette of Okabe and Ito (2008), for readers with any common kind of colour blindness.
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
DPI = 200
"""Resolution of PNG files, in dots per inch."""


def dashes(cycle: int) -> Any:
    """Return a line style, another one for every cycle through the palette, from 0."""
    if cycle < 2:
        return ("-", "--")[cycle]
    return (0, (6, 2) + (1, 2) * (cycle - 1))  # a dash, then ever more dots


def look(index: int, colours: Sequence[str] = PALETTE) -> dict[str, Any]:
    """Return colour and line style of a figure's line number `index`, all distinct.

    Args:
        index: number of the line, from 0.
        colours: colours to cycle through; the line style changes with every cycle.
    """
    return {"color": colours[index % len(colours)], "linestyle": dashes(index // len(colours))}


def dot_look(index: int) -> dict[str, Any]:
    """Return colour and marker of a figure's dots number `index`, from 0, all distinct."""
    cycle = index // len(PALETTE)
    marker = MARKERS[cycle] if cycle < len(MARKERS) else f"${cycle}$"
    return {"color": PALETTE[index % len(PALETTE)], "marker": marker}


def bar_look(index: int) -> dict[str, Any]:
    """Return colour and hatching of a figure's bars number `index`, from 0, all distinct."""
    cycle = index // len(PALETTE)
    settings: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)]}
    if cycle:
        density, pattern = divmod(cycle - 1, len(HATCHES))
        hatch = HATCHES[pattern] * (2 + density)
        settings |= {"hatch": hatch, "edgecolor": "white", "linewidth": 0}
    return settings


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
    """Apply the style while a figure is drawn, by `with styled():` or @styled() on a function."""
    with matplotlib.rc_context(STYLE):
        yield


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float, height: float, **subplots: Any
) -> tuple[Figure, Any]:
    """Return a figure of width x height inches, and its axes as `Figure.subplots` returns them."""
    with styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, **subplots)


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write path.png and path.pdf and return them; path has no suffix.

    A reader or a crash sees the old file or the new. The same figure gives the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    # Without these entries Matplotlib writes its version and the time into the files.
    unstamped: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None},
    }
    for suffix, metadata in unstamped.items():
        target = path.with_name(f"{path.name}.{suffix}")
        with styled(), replacing(target) as file:
            figure.savefig(file, format=suffix, dpi=DPI, metadata=metadata)
        written.append(target)
    return written
