"""The figures of learned rules: the intervals in them, what they show, and that they repeat."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tsar_jax.plasticity.rules import POOL
from tsar_jax.systems.learned_rules import episode_figures
from tsar_jax.systems.learned_rules.episode_curves import bootstrap, curve, smoothed

RANDOM = np.random.default_rng(0)
F_BIO = ("pseudo_gradient", "ehebb", "oja")


@pytest.fixture(autouse=True)
def same_numbers_in_any_order(monkeypatch) -> None:
    monkeypatch.setitem(globals(), "RANDOM", np.random.default_rng(0))


def episodes(terms=F_BIO, seeds=4, count=30, layers=3, per_layer=False) -> dict[str, np.ndarray]:
    """Columns as read_episodes gives them, of a network of `layers` layers of weights."""
    numbered = range(1, layers + 1)
    thetas = [f"theta_{term}" for term in terms]
    if per_layer:
        thetas = [f"layer_{layer}_{theta}" for layer in numbered for theta in thetas]
    angles = [f"layer_{layer}_angle" for layer in range(layers + 1)]
    errors = [f"layer_{layer}_orthonormality" for layer in numbered]
    names = ["loss", "accuracy", *thetas, *angles, *errors]
    columns = dict(zip(names, RANDOM.uniform(0.1, 1, (len(names), seeds, count)), strict=True))
    for name in angles:
        columns[name] *= 100
    columns[angles[-1]] *= 0
    return columns


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are drawn, in place of their files."""
    kept: list[Figure] = []
    monkeypatch.setattr(
        episode_figures, "write", lambda figure, path: kept.append(figure) or [path]
    )
    return kept


def labels(legend) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


def test_the_interval_is_that_of_resampled_medians() -> None:
    values = RANDOM.normal(size=(6, 2, 3))
    drawn = np.random.default_rng(7).integers(6, size=(500, 6))
    medians = np.array([np.median(values[rows], axis=0) for rows in drawn])
    median, low, high = bootstrap(values, seed=7)
    np.testing.assert_allclose(median, np.median(values, axis=0))
    np.testing.assert_allclose(low, np.percentile(medians, 1, axis=0))
    np.testing.assert_allclose(high, np.percentile(medians, 99, axis=0))


def test_one_seed_or_equal_seeds_have_no_spread() -> None:
    one = RANDOM.normal(size=(1, 5))
    for part in bootstrap(one):
        np.testing.assert_array_equal(part, one[0])
    for part in bootstrap(np.repeat(one, 8, 0)):
        np.testing.assert_allclose(part, one[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_lost_seed_is_left_out(value: float) -> None:
    values = np.random.default_rng(2).normal(size=(6, 3))
    lost = values.copy()
    lost[0, 1] = value
    lost[:, 2] = value
    median, low, high = bootstrap(lost)
    np.testing.assert_allclose(median[:2], [np.median(values[:, 0]), np.median(values[1:, 1])])
    assert low[1] < median[1] < high[1]
    assert np.isnan([median[2], low[2], high[2]]).all()


def test_one_wild_seed_does_not_leave_the_axis_and_a_lost_one_is_counted(drawn, tmp_path) -> None:
    run = episodes(seeds=5)
    run["loss"][0, 20:] = 1e20
    run["theta_oja"][1, 20:] = np.nan
    episode_figures.learning_figure({"F_bio": run}, tmp_path / "learning", window=1)
    shown = drawn[0].axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(shown, np.median(run["loss"], axis=0))
    assert shown.max() <= drawn[0].axes[0].get_ylim()[1]
    assert "1 of 5 seeds lost" in drawn[0].get_suptitle()


def test_a_generator_seed_gives_its_own_interval_each_time() -> None:
    values = RANDOM.normal(size=(5, 9))
    for first, again in zip(bootstrap(values, 3), bootstrap(values, 3), strict=True):
        np.testing.assert_array_equal(first, again)
    more = RANDOM.normal(size=(40, 9))
    assert not np.array_equal(bootstrap(more, 3).low, bootstrap(more, 4).low)


def test_a_moving_average_has_as_many_episodes_and_fewer_neighbours_at_the_ends() -> None:
    values = RANDOM.normal(size=(2, 25))
    means = smoothed(values, 10)
    assert means.shape == values.shape
    for episode in range(25):
        around = values[:, max(0, episode - 5) : episode + 5]
        np.testing.assert_allclose(means[:, episode], around.mean(1))
    np.testing.assert_array_equal(smoothed(values, 1), values)
    spike = np.array([1e20, *[1.0] * 20])
    np.testing.assert_array_equal(smoothed(spike, 10)[6:], np.ones(15))


def test_coefficients_alone_are_drawn_as_they_are() -> None:
    run = episodes()
    np.testing.assert_allclose(curve(run, "theta_oja").median, np.median(run["theta_oja"], 0))
    np.testing.assert_allclose(curve(run, "loss").median, np.median(smoothed(run["loss"], 10), 0))


def test_learning_shows_every_rule_in_percent_and_chance(drawn, tmp_path: Path) -> None:
    run = episodes()
    runs = {"FA": run, "a_long_term + another_long_term": episodes()}
    episode_figures.learning_figure(runs, tmp_path / "learning", 0.2)
    loss, accuracy = drawn[0].axes
    assert len(loss.lines) == 2
    np.testing.assert_allclose(
        accuracy.lines[0].get_ydata(), 100 * np.median(smoothed(run["accuracy"], 10), 0)
    )
    assert list(accuracy.lines[2].get_ydata()) == [20, 20]
    [legend] = drawn[0].legends
    assert labels(legend) == ["FA", "a_long_term +\nanother_long_term", "chance"]
    assert "4 seeds" in drawn[0].get_suptitle()
    episode_figures.learning_figure({"FA": episodes(seeds=1)}, tmp_path / "learning")
    assert [len(axes.lines) for axes in drawn[1].axes] == [1, 1]
    assert "one seed" in drawn[1].get_suptitle()


def test_a_term_looks_the_same_in_every_rule_and_the_legend_is_in_order(drawn, tmp_path) -> None:
    pool, three = episodes((*POOL, "my_$term")), episodes()
    for run in (pool, three):
        episode_figures.coefficients_figure(run, tmp_path / "coefficients", "rule")
    entries = []
    for figure, run in zip(drawn, (pool, three), strict=True):
        legend = figure.axes[0].get_legend()
        last = [np.median(run[name][:, -1]) for name in run if "theta" in name]
        assert len(legend.get_lines()) == len(last)
        looks = [(line.get_color(), line.get_linestyle()) for line in legend.get_lines()]
        by_label = dict(zip(labels(legend), looks, strict=True))
        assert len(set(looks)) == len(looks)
        ends = {
            (line.get_color(), line.get_linestyle()): line.get_ydata()[-1]
            for line in figure.axes[0].lines
            if line.get_linewidth() > 1
        }
        assert [ends[look] for look in looks] == sorted(last, reverse=True)
        entries.append(by_label)
    assert entries[1].items() <= entries[0].items()
    assert r"my_\$term" in entries[0]
    assert set(entries[1]) == {
        r"$\theta_0$ pseudo-gradient",
        r"$\theta_2$ eHebb",
        r"$\theta_9$ Oja",
    }


def test_small_coefficients_beside_large_ones_are_not_squeezed(drawn, tmp_path: Path) -> None:
    run = episodes()
    episode_figures.coefficients_figure(run, tmp_path / "coefficients")
    for name in ("theta_oja", "theta_ehebb"):
        run[name] = run[name] * 1e-3
    episode_figures.coefficients_figure(run, tmp_path / "coefficients")
    assert [figure.axes[0].get_yscale() for figure in drawn] == ["linear", "symlog"]


@pytest.mark.parametrize("window", [1, 4])
def test_a_moving_average_is_as_long_as_asked_in_every_figure(drawn, window, tmp_path) -> None:
    run = episodes()
    episode_figures.learning_figure({"FA": run}, tmp_path / "learning", window=window)
    episode_figures.alignment_figure({"FA": run}, tmp_path / "angles", "angle", window=window)
    episode_figures.episodes_figure(run, tmp_path / "episodes", window=window)
    learning, angles, episodes_drawn = drawn
    for axes, column in (
        (learning.axes[0], "loss"),
        (angles.axes[0], "layer_0_angle"),
        (episodes_drawn.axes[0], "loss"),
        (episodes_drawn.axes[2], "layer_0_angle"),
        (episodes_drawn.axes[3], "layer_1_orthonormality"),
    ):
        wanted = np.median(smoothed(run[column], window), 0)
        np.testing.assert_allclose(axes.lines[0].get_ydata(), wanted)
    scale = np.asarray(learning.axes[1].lines[0].get_ydata())
    np.testing.assert_allclose(scale, 100 * np.median(smoothed(run["accuracy"], window), 0))
    for figure in drawn:
        said = figure.get_suptitle()
        assert ("means of 4 episodes" in said) == (window == 4)
        assert ("means" in said) == (window > 1)


@pytest.mark.parametrize("layers", [1, 2, 3, 5, 6])
def test_a_panel_for_every_layer(drawn, layers: int, tmp_path: Path) -> None:
    runs = {"a": episodes(layers=layers), "b": episodes(layers=layers)}
    for what, first in (("angle", 0), ("orthonormality", 1)):
        episode_figures.alignment_figure(runs, tmp_path / what, what)
        panels = [axes for axes in drawn[-1].axes if axes.lines]
        names = [f"layer {layer}" for layer in range(first, layers + first)]
        assert [axes.get_title().removesuffix(", the input") for axes in panels] == names
        for layer, axes in enumerate(panels, first):
            mean = np.median(smoothed(runs["b"][f"layer_{layer}_{what}"], 10), 0)
            np.testing.assert_allclose(axes.lines[1].get_ydata(), mean)
            assert axes.get_ylim()[0] < mean.min() < mean.max() < axes.get_ylim()[1]
            assert axes.get_yscale() == ("linear" if what == "angle" else "log")
    episode_figures.coefficients_figure(episodes(layers=layers, per_layer=True), tmp_path / "own")
    assert sum(bool(axes.lines) for axes in drawn[-1].axes) == layers


def test_the_widest_angle_of_any_panel_fits(drawn, tmp_path: Path) -> None:
    run = episodes()
    run["layer_0_angle"] = run["layer_0_angle"] + 70
    episode_figures.alignment_figure({"a": run}, tmp_path / "angles", "angle")
    widest = curve(run, "layer_0_angle").high.max()
    assert widest > 100
    assert all(axes.get_ylim()[1] > widest for axes in drawn[0].axes[:3])


@pytest.mark.parametrize(
    ("run", "panels"),
    [
        ({}, 5),
        ({"seeds": 1, "count": 3}, 5),
        ({"seeds": 1, "count": 1}, 5),
        ({"count": 3, "layers": 2, "per_layer": True}, 6),
        ({"terms": POOL, "layers": 1}, 5),
    ],
    ids=str,
)
def test_a_run_has_a_figure_of_all_that_was_recorded(drawn, run: dict, panels, tmp_path) -> None:
    columns = episodes(**run)
    episode_figures.episodes_figure(columns, tmp_path / "episodes", 0.2)
    shown = [axes for axes in drawn[0].axes if axes.lines]
    assert len(shown) == panels
    drawn_lines = sum(line.get_linewidth() == 1.4 for axes in shown for line in axes.lines)
    # All columns but the output layer's angle; and chance, and a right angle.
    assert drawn_lines == len(columns) - 1 + 2
    drawn[0].draw_without_rendering()


def test_a_figure_is_written_and_the_same_each_time(tmp_path: Path) -> None:
    columns = episodes(seeds=1, count=1)
    path = tmp_path / "figures" / "episodes"
    files = episode_figures.episodes_figure(columns, path, 0.2)
    assert files == [path.with_suffix(".png"), path.with_suffix(".pdf")]
    with Image.open(files[0]) as image:
        assert image.width == 1400
    first = [file.read_bytes() for file in files]
    assert all(len(content) > 8_000 for content in first)
    episode_figures.episodes_figure(columns, path, 0.2)
    assert [file.read_bytes() for file in files] == first
