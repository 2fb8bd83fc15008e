"""compose_compare: tables and figure of scores, tiny runs from training to results, bad input."""

import csv
import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import compose as training
from experiments import compose_compare as script
from tsar_jax import cli
from tsar_jax.errors import UserError
from tsar_jax.systems.compose import comparison
from tsar_jax.systems.compose.comparison import Choices
from tsar_jax.systems.compose.figures import accuracy_figure

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def run(main, *arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *map(str, arguments)])
        cli.run_main(main)


SCORES = {
    Choices("sgd", "none", "gradient"): {50: np.array([0.2, 0.2, 0.2])},
    Choices("sgd", "weights", "gradient"): {50: np.array([0.3, 0.5, 0.4])},
    Choices("rule", "none", "gradient"): {50: np.array([0.5, 0.5, 0.5])},
    Choices("rule", "weights", "gradient"): {50: np.array([0.5, 0.5, 0.5])},
    Choices("rule", "layers", "openai_es"): {50: np.array([0.1])},
}


def test_what_a_choice_adds_is_found_in_pairs_that_differ_in_nothing_else() -> None:
    found = comparison.differences(SCORES, "modulation", "weights", 50)
    np.testing.assert_allclose(found, [0.2, 0.0])
    np.testing.assert_allclose(comparison.differences(SCORES, "learner", "rule", 50), [0.3, 0.1])
    assert comparison.differences(SCORES, "meta_optimiser", "openai_es", 50).size == 0
    table = comparison.gains_table(SCORES)
    assert "| modulation | weights | none | 2 | +0.200, +0.000 |" in table
    assert "openai_es" not in table


def test_accuracies_have_the_spread_over_runs() -> None:
    table = comparison.accuracy_table(SCORES)
    assert "| sgd | none | gradient | 3 | 0.200 ± 0.000 |" in table
    assert "| sgd | weights | gradient | 3 | 0.400 ± 0.248 |" in table  # t(2) = 4.303 / sqrt(300)
    assert "| rule | layers | openai_es | 1 | 0.100 |" in table


def test_the_figure_is_drawn_where_compositions_are_missing(tmp_path: Path) -> None:
    path = accuracy_figure(SCORES, 0.02, tmp_path / "accuracy")
    assert path.stat().st_size > 10_000


TINY = ("--preset", "smoke", "--encoder", "pixels", "--modulator-encoder", "pixels", "--rate", 1e-3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A run of two seeds, the same of one of them, another, and one in an environment."""
    folder = tmp_path_factory.mktemp("runs")
    run(training.main, *TINY, "--seeds", 2, "--out", folder / "plain")
    run(training.main, *TINY, "--seed", 1, "--out", folder / "again")
    run(training.main, *TINY, "--modulation", "layers", "--out", folder / "layers")
    environment = ("--stream", "cart_pole", "--learner", "hebbian", "--episode-steps", 5)
    run(training.main, *TINY, *environment, "--meta-optimiser", "pes", "--out", folder / "pole")
    return folder


def test_all_runs_have_the_same_lifetimes(runs: Path, tmp_path: Path, capsys) -> None:
    arguments = ("--classes", 2, 3, "--lifetimes", 8, "--out", tmp_path)
    names = ("plain", "again", "layers")
    run(script.main, "--runs", *(runs / name for name in names), *arguments)
    with open(tmp_path / "lifetimes.csv") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == tuple(comparison.COLUMNS)
    assert len(rows) == (2 + 1 + 1) * 2 * 8

    def accuracies(name: str, seed: str) -> list[str]:
        return [r["accuracy"] for r in rows if (r["run"], r["seed"]) == (name, seed)]

    # The same seed, trained in another run, has the same theta, and so the same scores.
    assert accuracies("plain", "1") == accuracies("again", "1")
    assert len(set(accuracies("again", "1"))) > 1
    assert accuracies("plain", "0") != accuracies("plain", "1")
    printed = capsys.readouterr().out
    assert (tmp_path / "accuracy.md").read_text() in printed
    assert "| sgd | none | gradient | 3 |" in printed
    assert "| modulation | layers | none | 1 |" in (tmp_path / "gains.md").read_text()
    assert (tmp_path / "figures" / "accuracy.png").exists()


def config_of(path: Path) -> script.ComposeConfig:
    return script.read_run(path, script.EXPERIMENT, script.ComposeConfig)


def test_what_cannot_be_compared_is_said(runs: Path, tmp_path: Path) -> None:
    plain = config_of(runs / "plain")
    pole = {runs / "pole": config_of(runs / "pole")}
    with pytest.raises(UserError, match="pole is on cart_pole, whose evaluations have no unseen"):
        comparison.check_comparable(pole, (2,))
    digits = dataclasses.replace(plain, stream="permuted")
    with pytest.raises(UserError, match="is on permuted, whose evaluations have no unseen"):
        comparison.check_comparable({runs: digits}, (2,))
    with pytest.raises(UserError, match=r"of 7 classes is asked for, but .*plain has 6 outputs"):
        comparison.check_comparable({runs / "plain": plain}, (2, 7))
    pairs = {"learn": 1, "network": "anml", "channels": 3}
    for name, value in pairs.items():
        other = dataclasses.replace(plain, learner="adam", **{name: value})
        with pytest.raises(UserError, match=f"{name} is {value!r} in other, but .* in .*plain"):
            comparison.check_comparable({runs / "plain": plain, Path("other"): other}, (2,))
    rated = {"meta_rate": 0.5, "steps": 2}
    for name, value in rated.items():
        other = dataclasses.replace(plain, **{name: value})
        with pytest.raises(UserError, match=f"{name} is {value} in other, but"):
            comparison.check_comparable({runs / "plain": plain, Path("other"): other}, (2,))
        own = dataclasses.replace(other, meta_optimiser="openai_es")
        comparison.check_comparable({runs / "plain": plain, Path("other"): own}, (2,))
    with pytest.raises(UserError, match=r"is at step 4 of 9: finish it with --resume"):
        script.read_thetas(runs / "plain", dataclasses.replace(plain, steps=9))
    with pytest.raises(UserError, match="--runs names no run"):
        script.Arguments((), tmp_path)
    with pytest.raises(UserError, match="--runs names a folder twice"):
        script.Arguments((runs, runs), tmp_path)
    with pytest.raises(UserError, match=r"--classes must be numbers of at least 1, but are \(0,\)"):
        script.Arguments((runs,), tmp_path, classes=(0,))


def test_lost_seeds_keep_the_numbers_of_the_others(runs: Path, monkeypatch) -> None:
    plain = config_of(runs / "plain")
    load = script.load_seeds
    monkeypatch.setattr(script, "load_seeds", lambda *a, **k: (load(*a, **k)[0], [0], 4))
    thetas, kept = script.read_thetas(runs / "plain", plain)
    assert kept.tolist() == [1]
    both, _, _ = load(runs / "plain", like=jax.eval_shape(system_of(plain).init, jax.random.key(0)))
    one = jax.tree.map(lambda leaf: leaf[1:], both.theta)
    jax.tree.map(np.testing.assert_array_equal, thetas, one)
    rows = comparison.lifetime_rows(comparison.choices_of(plain), "plain", 2, kept, np.ones((1, 1)))
    assert rows == [["sgd", "none", "gradient", "plain", "1", "2", "0", "1.000000"]]
    monkeypatch.setattr(script, "load_seeds", lambda *a, **k: (load(*a, **k)[0], [0, 1], 4))
    with pytest.raises(UserError, match=r"All seeds of .*plain are lost: leave it out"):
        script.read_thetas(runs / "plain", plain)


def system_of(config):
    return script.make_system(config, script.find_stream(config))
