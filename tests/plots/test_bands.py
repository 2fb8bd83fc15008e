"""Figures show every result, tell all of them apart, and have the bands of their tables."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tsar_jax.evaluation.spread import confidence_band, deviation_band
from tsar_jax.plots import style
from tsar_jax.systems.continual import figures as continual_figures
from tsar_jax.systems.continual import probe_figures as continual_probe_figures
from tsar_jax.systems.continual.measures import Outcome, mean_and_deviation
from tsar_jax.systems.continual.probes import Reliability
from tsar_jax.systems.episodic import meta_test_figure, transfer_figure
from tsar_jax.systems.episodic.meta_test import Result
from tsar_jax.systems.episodic.meta_test_results import percent
from tsar_jax.systems.hebbian import figures as hebbian_figures

MANY = 20
NAMES = [f"method {number}" for number in range(MANY)]
MODULES = (
    *(continual_figures, continual_probe_figures, hebbian_figures),
    *(meta_test_figure, transfer_figure),
)


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are drawn, in place of their files."""
    kept: list[Figure] = []
    for module in MODULES:
        monkeypatch.setattr(
            module, "save_figure", lambda figure, path: kept.append(figure) or [path]
        )
    return kept


def outcome(method: str, values: list[list[float]], tasks: int = 2) -> Outcome:
    """Accuracies by seed, the same on every test after every task."""
    matrix = np.array(values, float)[:, :, None, None, None] * np.ones((1, 1, tasks, 1, 2))
    untrained = np.zeros((len(values), tasks))
    head = (method, "seq-toy", 200, (0, len(values)), ("working",), "working", "domain", False)
    return Outcome(*head, matrix, untrained, {})


def rows(values: list[float]) -> list[Result]:
    return [Result(classes, 1e-3, values, values, []) for classes in (10, 50)]


def looks(figure: Figure) -> list[tuple]:
    """How a legend's lines and bars look, by entry."""
    found = []
    for legend in [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]:
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
            if text.get_text() in NAMES:
                if hasattr(handle, "get_hatch"):
                    found.append((handle.get_facecolor(), handle.get_hatch()))
                else:
                    pattern = (handle._unscaled_dash_pattern, handle.get_marker())
                    found.append((handle.get_color(), *map(str, pattern)))
    return found


def curves(path: Path) -> None:
    values = [[0.9, 0.8], [0.8, 0.7], [0.7, 0.6]]
    continual_figures.curves_figure({"buffer 200": [outcome(n, values) for n in NAMES]}, path, "t")


def bars(path: Path) -> None:
    continual_figures.bars_figure([outcome(n, [[0.9, 0.8]] * 3) for n in NAMES], path, "t")


def meta_test(path: Path) -> None:
    meta_test_figure.meta_test_figure({name: rows([0.5, 0.6, 0.7]) for name in NAMES}, path, "runs")


def meta_test_of_one_number(path: Path) -> None:
    conditions = {name: rows([0.5, 0.6, 0.7])[:1] for name in NAMES}
    meta_test_figure.meta_test_figure(conditions, path, "runs")


def meta_training(path: Path) -> None:
    meta_test_figure.learning_figure({name: [[(1, 0.5), (2, 0.6)]] for name in NAMES}, path)


def transfer(path: Path) -> None:
    pair = np.full((3, 30), 0.5), np.full((3, 30), 0.4)
    transfer_figure.forgetting_figure(dict.fromkeys(NAMES, pair), path)


def bodies(path: Path) -> None:
    hebbian_figures.bodies_figure({name: {"standard": np.arange(5.0)} for name in NAMES}, path)


def evolution(path: Path) -> None:
    metrics = [{"step": 1, "split": "train", "fitness_mean": 1.0}]
    hebbian_figures.comparison_figure({name: [metrics] for name in NAMES}, path)


def noise(path: Path) -> None:
    bins = np.full(2, 0.5)
    one = {"by_class": False, "task_probability": bins, "task_accuracy": bins}
    one |= {"reliability": Reliability(bins, bins, bins, 0.1), "trade_off": {}}
    many = [
        continual_probe_figures.Analysis(label=n, noise=np.full((3, 2), 0.5), **one) for n in NAMES
    ]
    continual_probe_figures.noise_figure(many, np.array([0, 1]), path)


@pytest.mark.parametrize(
    "draw",
    [
        *(curves, bars, meta_test, meta_test_of_one_number, meta_training),
        *(transfer, bodies, evolution, noise),
    ],
)
def test_twenty_results_are_drawn_and_told_apart(draw, drawn, tmp_path) -> None:
    draw(tmp_path / "a")
    found = looks(drawn[0])
    assert len(found) == len(set(found)) or draw in (evolution, noise)
    labels = {text.get_text() for legend in drawn[0].legends for text in legend.get_texts()}
    labels |= {
        text.get_text()
        for axes in drawn[0].axes
        if axes.get_legend()
        for text in axes.get_legend().get_texts()
    }
    assert sum(any(label.startswith(name) for label in labels) for name in NAMES) == MANY
    drawn[0].draw_without_rendering()


@pytest.mark.parametrize("look", [style.look, style.dot_look, style.bar_look])
def test_no_two_places_look_alike(look) -> None:
    assert len({str(look(place)) for place in range(150)}) == 150


def band_ends(figure: Figure) -> list[np.ndarray]:
    return [
        path.vertices[:, 1]
        for axes in figure.axes
        for collection in axes.collections
        for path in collection.get_paths()
    ]


def test_bands_are_those_of_the_tables_and_stay_in_range(drawn, tmp_path) -> None:
    values = [0.97, 0.99, 1.0]
    meta_test_figure.meta_test_figure({"a": rows(values)}, tmp_path / "a", "3 runs")
    ends = np.concatenate(band_ends(drawn[0]))
    _, low, high = map(float, confidence_band(np.array(values)))
    assert (ends.min(), ends.max()) == (pytest.approx(low), 1.0)
    assert (high, percent(values)) == (1.0, f".987 ({low:.3f} to 1.000)".replace("0.", "."))
    matrix = [[0.9, 0.8], [1.0, 1.0], [1.0, 1.0]]
    continual_figures.curves_figure({"b": [outcome("er", matrix)]}, tmp_path / "a", "t")
    ends = np.concatenate(band_ends(drawn[1]))
    assert ends.max() == pytest.approx(100)
    last = deviation_band(np.array([80.0, 100, 100]))
    assert ends.min() == pytest.approx(float(last.low))
    assert mean_and_deviation(np.array([0.8, 1, 1])).startswith(f"93.33 ({float(last.low):.2f}")


def test_of_fewer_than_three_runs_the_values_are_shown(drawn, tmp_path) -> None:
    two = [0.1, 0.4]
    meta_test_figure.meta_test_figure({"a": rows(two)}, tmp_path / "a", "2 runs")
    meta_test_figure.meta_test_figure({"a": rows(two)[:1]}, tmp_path / "a", "2 runs")
    continual_figures.curves_figure(
        {"b": [outcome("er", [[0.1, 0.1], [0.4, 0.4]])]}, tmp_path / "a", "t"
    )
    for figure, factor in zip(drawn, (1, 1, 100), strict=True):
        assert not band_ends(figure)
        shown = {float(y) for line in figure.axes[0].lines for y in np.ravel(line.get_ydata())}
        assert {factor * value for value in two} <= {round(y, 9) for y in shown}
        assert all(getattr(bars, "errorbar", None) is None for bars in figure.axes[0].containers)
    assert "of fewer than 3, each" in drawn[0].get_suptitle()


def test_a_lost_seed_is_counted_and_the_others_are_drawn(drawn, tmp_path) -> None:
    nan = float("nan")
    values = [[0.5, 0.5], [0.6, 0.6], [0.7, 0.7], [0.8, nan]]
    continual_figures.curves_figure({"b": [outcome("er", values)]}, tmp_path / "a", "t")
    [line] = drawn[0].axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [65, 60])
    assert "1 of 4 runs lost" in drawn[0].get_suptitle()
