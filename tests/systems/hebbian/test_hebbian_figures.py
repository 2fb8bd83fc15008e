"""The figures of evolved plasticity: what they are drawn from and what is in them."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure

from tsar_jax.plots.style import save_figure
from tsar_jax.systems.hebbian import figures
from tsar_jax.systems.hebbian.figures import series, smoothed

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order(monkeypatch) -> None:
    monkeypatch.setitem(globals(), "RANDOM", np.random.default_rng(0))


def rows(steps=6, every=3, offset=0.0):
    """Metrics as a run has them: a row per generation, and evaluations between."""
    found = []
    for step in range(1, steps + 1):
        mean = offset + step
        found.append(
            {"step": step, "split": "train", "fitness_mean": mean}
            | {"fitness_worst": mean - 1, "fitness_best": mean + 2}
        )
        if step % every == 0:
            found.append({"step": step, "split": "eval", "fitness": offset + 10 * step})
    return found


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are drawn, which are written too."""
    kept: list[Figure] = []

    def keep(figure, path):
        kept.append(figure)
        return save_figure(figure, path)

    monkeypatch.setattr(figures, "save_figure", keep)
    return kept


def bands(axes):
    return [c for c in axes.collections if isinstance(c, FillBetweenPolyCollection)]


def reach(band):
    """Lowest and highest value of a band."""
    heights = band.get_paths()[0].vertices[:, 1]
    return heights.min(), heights.max()


def labels(figure) -> list[str]:
    [legend] = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def assert_written(png: Path, wanted: Path) -> None:
    assert png == wanted.with_name(f"{wanted.name}.png")
    for path in (png, png.with_suffix(".pdf")):
        assert path.stat().st_size > 5_000


def test_a_series_is_of_one_metric_and_split() -> None:
    steps, values = series(rows(), "eval", "fitness")
    np.testing.assert_array_equal(steps, [3, 6])
    np.testing.assert_array_equal(values, [30, 60])
    assert [len(part) for part in series([], "eval", "fitness")] == [0, 0]


@pytest.mark.parametrize("width", [1, 4, 5, 30])
def test_a_running_mean_is_of_the_steps_around(width) -> None:
    rewards = RANDOM.normal(size=(2, 12))
    means = smoothed(rewards, width)
    assert means.shape == rewards.shape
    if width > 12:  # all that there are, at most
        width = 12
    for step in range(12):
        around = rewards[:, max(0, step - width // 2) : step - width // 2 + width]
        np.testing.assert_allclose(means[:, step], around.mean(1))


def test_evolution_shows_the_population_and_its_centre(drawn, tmp_path) -> None:
    assert_written(figures.evolution_figure(rows(), tmp_path / "f" / "a"), tmp_path / "f" / "a")
    [axes] = drawn[0].axes
    population, centre = axes.lines
    np.testing.assert_array_equal(population.get_xydata(), [[s, s] for s in range(1, 7)])
    np.testing.assert_array_equal(centre.get_xydata(), [[3, 30], [6, 60]])
    [band] = bands(axes)
    assert reach(band) == (0, 8)
    assert len(labels(drawn[0])) == 2


def test_evolution_may_not_have_begun(drawn, tmp_path) -> None:
    figures.evolution_figure([], tmp_path / "none")
    assert [len(line.get_xdata()) for line in drawn[0].axes[0].lines] == [0, 0]


def test_runs_of_a_kind_are_a_mean_and_a_band_as_far_as_all_go(drawn, tmp_path) -> None:
    runs = {"static": [rows()], "ABCD_lr": [rows(5), rows(4, offset=2.0), rows(6, offset=1.0)]}
    assert_written(figures.comparison_figure(runs, tmp_path / "a"), tmp_path / "a")
    [axes] = drawn[0].axes
    one, three = axes.lines
    np.testing.assert_array_equal(one.get_ydata(), np.arange(1, 7))
    np.testing.assert_array_equal(three.get_xydata(), [[s, s + 1] for s in range(1, 5)])
    assert [reach(band) for band in bands(axes)] == [(1, 6), (1, 6)]
    assert labels(drawn[0]) == ["static (1)", "ABCD_lr (3)"]


def test_recovery_shows_each_lesion_beside_intact_lifetimes(drawn, tmp_path) -> None:
    rewards = {name: RANDOM.normal(size=(5, 30)) for name in ("intact", "frozen", "zeroed")}
    marks = {"frozen": (10, 30), "zeroed": (10, 11)}
    path = figures.recovery_figure(rewards, marks, tmp_path / "a", width=6)
    assert_written(path, tmp_path / "a")
    for axes, lesion in zip(drawn[0].axes, ("frozen", "zeroed"), strict=True):
        assert len(bands(axes)) == 2
        for line, name in zip(axes.lines, ("intact", lesion), strict=True):
            assert line.get_label() == name
            wanted = np.median(smoothed(rewards[name], 6), axis=0)
            np.testing.assert_allclose(line.get_ydata(), wanted)
        [shade] = axes.patches
        assert (shade.get_x(), shade.get_x() + shade.get_width()) == marks[lesion]
    assert "5 lifetimes, mean of 6 steps" in drawn[0].axes[-1].get_xlabel()


def test_weights_share_a_scale_that_a_few_giants_do_not_set(drawn, tmp_path) -> None:
    images = {title: RANDOM.uniform(-1, 1, (20, 30)) for title in ("before", "after")}
    images["after"][0, :3] = 1e6
    assert_written(figures.weights_figure(images, tmp_path / "a"), tmp_path / "a")
    *panels, _ = drawn[0].axes
    assert [axes.get_title() for axes in panels] == ["before", "after"]
    for axes, image in zip(panels, images.values(), strict=True):
        [shown] = axes.images
        np.testing.assert_array_equal(shown.get_array(), image)
        low, high = shown.get_clim()
        assert -low == high == pytest.approx(1, abs=0.05)


def test_weights_may_all_be_zero(drawn, tmp_path) -> None:
    figures.weights_figure({"lost": np.zeros((3, 4))}, tmp_path / "a")
    assert drawn[0].axes[0].images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize("kinds", [1, 2, 10])
def test_bodies_have_a_bar_of_each_kind_of_run(drawn, kinds, tmp_path) -> None:
    bodies = ("standard", "right_front", "left_front")
    fitness = {
        f"rule {kind}": {body: RANDOM.normal(kind, 1, size=6) for body in bodies}
        for kind in range(1, kinds + 1)
    }
    assert_written(figures.bodies_figure(fitness, tmp_path / "a"), tmp_path / "a")
    [axes] = drawn[0].axes
    assert len(axes.patches) == kinds * len(bodies)
    bars = iter(axes.patches)
    for of_bodies in fitness.values():
        for place, scores in enumerate(of_bodies.values()):
            bar = next(bars)
            assert bar.get_height() == pytest.approx(scores.mean())
            assert abs(bar.get_x() + bar.get_width() / 2 - place) < 0.4
    ends = [segment[:, 1] for bars in axes.containers for segment in segments(bars)]
    scores = [scores for of_bodies in fitness.values() for scores in of_bodies.values()]
    wanted = [[s.mean() - s.std(), s.mean() + s.std()] for s in scores]
    np.testing.assert_allclose(ends, wanted)
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "standard",
        "right front",
        "left front",
    ]
    assert labels(drawn[0]) == list(fitness)


def segments(bars):
    """The error bars of a container of bars; none of a container of the error bars themselves."""
    errors = getattr(bars, "errorbar", None)
    return errors.lines[2][0].get_segments() if errors else []
