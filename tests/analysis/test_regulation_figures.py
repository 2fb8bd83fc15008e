"""The figures of regulation: what they say, what they show, and that they are written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tsar_jax.analysis import regulation as analysis
from tsar_jax.analysis import regulation_figures as figures
from tsar_jax.analysis.style import save_figure

RANDOM = np.random.default_rng(0)
LAYERS = ("block_1", "block_2")


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
    texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return "\n".join(texts)


def regulation():
    silent = np.eye(1, analysis.BINS)[0]
    rows = {"bias -8": power_law(-1.5, analysis.BINS), "bias -12": silent}
    return figures.regulation_figure(rows, "block_2")


def avalanche():
    counts = np.stack([power_law(-slope, analysis.AVALANCHE_BINS) for slope in (1, 2, 2.5)])
    return figures.avalanche_figure(counts, analysis.THRESHOLDS, "block_2")


def ranks():
    counts = RANDOM.poisson(1, (analysis.RANK_BINS, analysis.RANK_BINS))
    return figures.rank_figure(counts, 9216, 0.5, "block_2")


def lag():
    counts = RANDOM.poisson(1, (analysis.LAG_BINS, analysis.LAG_BINS))
    return figures.lag_figure(counts, 2211, float("nan"), "block_1")


def co_activity():
    information = RANDOM.uniform(size=(40, 30))
    return figures.co_activity_figure(information, LAYERS, (40, 1030), "r > 0.25 on most images")


def output():
    values = RANDOM.normal(size=10)
    values[0] = np.nan
    changes = {f"{w}, {s}": values for w in ("before", "after") for s in ("positive", "negative")}
    return figures.output_figure(changes, 12)


@pytest.mark.parametrize(
    ("draw", "wanted"),
    [
        (regulation, ["bias -8: slope -1.50", "bias -12: all in one bin", "C3"]),
        (avalanche, ["r > 0.10: slope -1.00", "r > 0.25: slope -2.00", "r > 0.50: slope -2.50"]),
        (ranks, ["log10 rank in one class", "over the other classes", "9,216", "correlation 0.50"]),
        (lag, ["image t - 1", "at image t\n", "2,211 synapses of C2", "no correlation"]),
        (co_activity, ["C2 and C3", "40 of 40 and 30 of 1,030", "mutual information"]),
        (output, ["positive weights", "negative weights", "10 of 12 classes", "relative change"]),
    ],
)
def test_figures_say_what_they_show_and_are_written(draw, wanted, tmp_path: Path) -> None:
    figure = draw()
    for text in wanted:
        assert text in words(figure)
    files = save_figure(figure, tmp_path / "figure")
    assert [file.suffix for file in files] == [".png", ".pdf"]
    assert all(file.stat().st_size > 8_000 for file in files)
    with Image.open(files[0]) as image:
        assert len(set(image.convert("RGB").resize((60, 40)).getdata())) > 10


@pytest.mark.parametrize(
    ("shape", "silent"), [((0, 4), "of C2 fires"), ((4, 0), "of C3 fires"), ((0, 0), "C2 or C3")]
)
def test_no_synapse_that_fires_often_is_said_in_the_axes(shape, silent, tmp_path: Path) -> None:
    needed = "r > 0.25 on more than 1% of 30 images"
    figure = figures.co_activity_figure(np.zeros(shape), LAYERS, shape, needed)
    (axes,) = figure.axes
    assert not axes.images
    assert silent in axes.texts[0].get_text()
    assert needed in axes.texts[0].get_text()
    assert f"{shape[0]} of {shape[0]} and {shape[1]} of {shape[1]}" in axes.get_title()
    assert all(file.stat().st_size > 3_000 for file in save_figure(figure, tmp_path / "silent"))


def test_synapses_alike_are_neighbours() -> None:
    groups = RANDOM.permutation(np.repeat([0, 1, 2], 5))
    rows = np.eye(3)[groups]
    order = figures.similar_together(rows)
    assert sorted(order) == list(range(15))
    assert (np.diff(groups[order]) != 0).sum() == 2
    for few in (1, 2):
        np.testing.assert_array_equal(figures.similar_together(rows[:few]), range(few))


def test_time_runs_from_the_horizontal_to_the_vertical_axis() -> None:
    counts = np.zeros((analysis.LAG_BINS, analysis.LAG_BINS), int)
    counts[10, 40] = 7  # r = 0.04 and then 0.16
    figure = figures.lag_figure(counts, 1, 0.0, "block_2")
    axes = figure.axes[0]
    shown = axes.images[0].get_array()
    assert shown[40, 10] == 7
    assert shown.count() == 1
    assert 0.16 < axes.get_xlim()[1] == axes.get_ylim()[1] < 0.2


def test_axes_of_decades_hold_every_value() -> None:
    low, high = figures.decades(np.array([0.02, 1.0, 30.0]))
    assert (low, high) == (pytest.approx(0.01 / 1.3), pytest.approx(130))


def test_boxes_leave_out_what_is_not_finite() -> None:
    changes = {
        f"{when}, {sign}": np.array([np.nan, np.inf])
        for when in ("before", "after")
        for sign in ("positive", "negative")
    }
    changes["before, positive"] = np.array([0.1, 0.3, np.nan])
    axes = figures.output_figure(changes, 4).axes[0]
    means = [line.get_ydata() for line in axes.lines if line.get_marker() == "D"]
    assert len(means) == 4
    assert means[0] == pytest.approx([0.2])
