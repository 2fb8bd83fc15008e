"""compose_compare: tables and figure of scores, tiny runs from training to results, bad input."""

import csv
import sys
from pathlib import Path

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
    assert "| weights | none | 2 | +0.200, +0.000 |" in table
    assert "openai_es" not in table


def test_accuracies_have_the_spread_over_runs() -> None:
    table = comparison.accuracy_table(SCORES)
    assert "| sgd | none | gradient | 3 | 0.200 ± 0.000 |" in table
    assert "| sgd | weights | gradient | 3 | 0.400 ± 0.248 |" in table  # t(2) = 4.303 / sqrt(300)
    assert "| rule | layers | openai_es | 1 | 0.100 |" in table


def test_the_figure_is_drawn_where_compositions_are_missing(tmp_path: Path) -> None:
    path = accuracy_figure(SCORES, 0.02, tmp_path / "accuracy")
    assert path.stat().st_size > 10_000


TINY = ("--preset", "smoke", "--encoder", "pixels", "--modulator-encoder", "pixels")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A run of two seeds, one of one, and one in an environment."""
    folder = tmp_path_factory.mktemp("runs")
    run(training.main, *TINY, "--seeds", 2, "--out", folder / "plain")
    run(training.main, *TINY, "--modulation", "layers", "--out", folder / "layers")
    environment = ("--stream", "cart_pole", "--learner", "hebbian", "--episode-steps", 5)
    run(training.main, *TINY, *environment, "--meta-optimiser", "pes", "--out", folder / "pole")
    return folder


def test_runs_live_the_same_lifetimes(runs: Path, tmp_path: Path, capsys) -> None:
    arguments = ("--classes", 2, 3, "--lifetimes", 4, "--out", tmp_path)
    run(script.main, "--runs", runs / "plain", runs / "layers", *arguments)
    with open(tmp_path / "lifetimes.csv") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == tuple(comparison.COLUMNS)
    assert len(rows) == (2 + 1) * 2 * 4
    assert {row["seed"] for row in rows if row["run"] == "plain"} == {"0", "1"}
    printed = capsys.readouterr().out
    assert (tmp_path / "accuracy.md").read_text() in printed
    assert "| layers | none | 1 |" in (tmp_path / "gains.md").read_text()
    assert (tmp_path / "figures" / "accuracy.png").exists()
    mean = np.mean([float(row["accuracy"]) for row in rows if row["classes"] == "3"][:8])
    assert f"plain, 3 classes: {mean:.3f}" in printed


def test_what_cannot_be_compared_is_said(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(script.main, "--runs", runs / "pole", "--out", tmp_path)
    configs = {
        path: script.read_run(path, script.EXPERIMENT, script.ComposeConfig)
        for path in (runs / "plain", runs / "pole")
    }
    with pytest.raises(UserError, match="pole lives in an environment: name runs on streams of"):
        script.chance_of(configs)
    with pytest.raises(UserError, match="--runs names no run"):
        script.Arguments((), tmp_path)
    with pytest.raises(UserError, match=r"--classes must be numbers of at least 1, but are \(0,\)"):
        script.Arguments((runs,), tmp_path, classes=(0,))
