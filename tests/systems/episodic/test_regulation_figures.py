"""The figures of regulation: what they say, what they show, and that they are written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tsar_jax.plots.style import save_figure
from tsar_jax.systems.episodic.analysis import regulation as analysis
from tsar_jax.systems.episodic.analysis import regulation_figures as figures
from tsar_jax.systems.episodic.analysis.co_activity import BINS

RANDOM = np.random.default_rng(0)
LAYERS = ("block_1", "block_2")
WHOSE = "while it learns, initial bias -8, 3 runs pooled"


@pytest.fixture(autouse=True)
def same_numbers_in_any_order(monkeypatch) -> None:
    monkeypatch.setitem(globals(), "RANDOM", np.random.default_rng(0))


def power_law(slope: float, bins: int) -> np.ndarray:
    return 1000 * analysis.bin_centres(bins) ** slope


def words(figure) -> str:
    """Everything that is written in a figure but the numbers on its axes."""
    texts = [
        text
        for axes in figure.axes
        for text in (axes.get_title(), axes.get_xlabel(), axes.get_ylabel())
    ]
    texts += [text.get_text() for axes in figure.axes for text in axes.texts]
    legends = [axes.get_legend() for axes in figure.axes] + figure.legends
    texts += [text.get_text() for legend in legends if legend for text in legend.get_texts()]
    texts.append(figure.get_suptitle())
    return "\n".join(texts)


def regulation():
    silent = np.eye(1, analysis.BINS)[0]
    rows = {"bias -8": power_law(-1.5, analysis.BINS), "bias -12": silent}
    return figures.regulation_figure(rows, "block_2", WHOSE)


def avalanche():
    counts = np.stack([power_law(-slope, analysis.AVALANCHE_BINS) for slope in (1, 2, 2.5)])
    counts[2, 5:] = 0
    return figures.avalanche_figure(counts, analysis.THRESHOLDS, "block_2", WHOSE)


def ranks():
    counts = RANDOM.poisson(1, (analysis.RANK_BINS, analysis.RANK_BINS))
    return figures.rank_figure(counts, 9216, 0.5, "block_2", WHOSE)


def lag():
    counts = RANDOM.poisson(1, (analysis.LAG_BINS, analysis.LAG_BINS))
    return figures.lag_figure(counts, 2211, float("nan"), "block_1", WHOSE)


def co_activity():
    counts = RANDOM.poisson(3, (3, BINS))
    counts[2] = 0
    pairs = {("block_1",): counts, LAYERS: 1000 * counts}
    return figures.co_activity_figure(pairs, analysis.THRESHOLDS, WHOSE)


def output():
    values = RANDOM.normal(size=10)
    values[0] = np.nan
    changes = {f"{w}, {s}": values for w in ("before", "after") for s in ("positive", "negative")}
    profiles = {sign: RANDOM.normal(size=(10, 16)) for sign in ("positive", "negative")}
    return figures.output_figure(changes, profiles, WHOSE)


@pytest.mark.parametrize(
    ("draw", "wanted"),
    [
        (regulation, ["bias -8", "bias -12", "C3"]),
        (avalanche, ["r > 0.10: tail above", "exponent 1.0", "exponent 2.0", "r > 0.50: no tail"]),
        (ranks, ["log10 rank in one class", "over the other classes", "9,216", "correlation 0.50"]),
        (lag, ["image t - 1", "at image t\n", "2,211 synapses of C2", "no correlation"]),
        (co_activity, ["C2 with C3", "r > 0.50: no pairs", "mutual information", "share of pairs"]),
        (
            output,
            ["positive weights", "negative weights", "against the 5 before", "relative change"],
        ),
    ],
)
def test_figures_say_what_they_show_and_are_written(draw, wanted, tmp_path: Path) -> None:
    figure = draw()
    for text in [*wanted, WHOSE]:
        assert text in words(figure)
    files = save_figure(figure, tmp_path / "figure")
    assert [file.suffix for file in files] == [".png", ".pdf"]
    assert all(file.stat().st_size > 8_000 for file in files)
    with Image.open(files[0]) as image:
        assert len(set(image.convert("RGB").resize((60, 40)).getdata())) > 10


def test_bars_of_co_activity_are_shares_of_pairs() -> None:
    counts = np.zeros((3, BINS), int)
    counts[0, 0], counts[0, 1999] = 3_000_000, 1_000_000
    figure = figures.co_activity_figure({LAYERS: counts}, analysis.THRESHOLDS, WHOSE)
    values = figure.axes[0].patches[0].get_data().values
    assert (values[0], values[-1]) == (pytest.approx(0.75), pytest.approx(0.25))
    assert np.isnan(values[1:-1]).all()
    assert "r > 0.10: 4 M pairs, mean 0.250" in words(figure)


def test_time_runs_from_the_horizontal_to_the_vertical_axis() -> None:
    counts = np.zeros((analysis.LAG_BINS, analysis.LAG_BINS), int)
    counts[10, 40] = 7  # r = 0.04 and then 0.16
    figure = figures.lag_figure(counts, 1, 0.0, "block_2", WHOSE)
    axes = figure.axes[0]
    shown = axes.images[0].get_array()
    assert shown[40, 10] == 7
    assert shown.count() == 1
    assert 0.16 < axes.get_xlim()[1] == axes.get_ylim()[1] < 0.2


def test_axes_of_decades_hold_every_value() -> None:
    low, high = figures.decades(np.array([0.02, 1.0, 30.0]))
    assert (low, high) == (pytest.approx(0.01 / 1.3), pytest.approx(130))


def test_boxes_and_profiles_leave_out_what_is_not_finite() -> None:
    changes = {
        f"{when}, {sign}": np.array([np.nan, np.inf])
        for when in ("before", "after")
        for sign in ("positive", "negative")
    }
    changes["before, positive"] = np.array([0.1, 0.3, np.nan])
    profile = np.full((3, 16), np.nan)
    profile[:, 5] = [0.2, 0.6, np.inf]
    profiles = {"positive": profile, "negative": np.full((3, 16), np.nan)}
    left, right = figures.output_figure(changes, profiles, WHOSE).axes
    means = [line.get_ydata() for line in right.lines if line.get_marker() == "D"]
    assert len(means) == 4
    assert means[0] == pytest.approx([0.2])
    (drawn,) = [line for line in left.lines if line.get_marker() == "o"]
    assert drawn.get_xydata() == pytest.approx(np.array([[0, 0.4]]))
