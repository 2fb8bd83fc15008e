"""Published trainings in slices: what is stopped goes on, what is finished is not repeated."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from benchmarks import accelerator
from benchmarks.accelerator import TRAININGS, is_finished, main, progress_of
from benchmarks.report import training_cells
from benchmarks.suite import choose
from tsar_jax.cli.scripts import experiments
from tsar_jax.precision import FAST, FULL

RULES = next(training for training in TRAININGS if training.name == "rules")
SMALL = RULES._replace(preset="smoke")


def results(out) -> dict:
    return json.loads((out / "accelerator.json").read_text())["trainings"]["rules"]


def test_a_training_is_stopped_goes_on_and_is_not_repeated(tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    arguments = ["--small", "--only", "rules", "--out", str(out)]
    started = time.monotonic()
    # Stopped as soon as it has begun, wherever it is then; a slice without a step is said.
    assert main([*arguments, "--slice", "0.02"]) == 1
    assert time.monotonic() - started < accelerator.SAVING_SECONDS
    assert "no step within 0.02 minutes: raise --slice" in results(out)["error"]
    assert main(arguments) == 0
    row = results(out)
    assert is_finished(row, SMALL)
    assert not is_finished(row, RULES)  # of preset paper
    assert row["device"] == "cpu"
    assert row["command"].endswith("--preset smoke")
    assert "| rules | cpu |" in (out / "accelerator.md").read_text()
    capsys.readouterr()
    monkeypatch.setattr(accelerator, "_slice", None)  # nothing is left to train
    assert main(arguments) == 0
    assert "training" not in capsys.readouterr().err


def test_a_training_that_fails_says_why(tmp_path) -> None:
    folder = tmp_path / "rules"
    folder.with_suffix(".log").write_text("compiling ...\nerror: no such data.\n\n")
    row = progress_of(RULES, folder, 2)
    assert row["error"] == "error: no such data."
    assert not is_finished(row, RULES)
    shares = {"rule_episode": "50 % (rule_episode)", "tsar": "1 % (tsar)"}
    wanted = ["rules", "", "", "", "", "50 % (rule_episode)", "error: no such data."]
    assert training_cells("rules", row, shares) == wanted


def test_sigterm_stops_the_training_too(tmp_path) -> None:
    out = tmp_path / "out"
    command = ["-m", "benchmarks.accelerator", "--small", "--only", "rules", "--out", str(out)]
    with subprocess.Popen([sys.executable, *command], cwd=accelerator.ROOT) as driver:
        while not (out / "rules.log").exists():
            time.sleep(0.1)
            assert driver.poll() is None
        driver.terminate()
        assert driver.wait(accelerator.SAVING_SECONDS) == 128 + signal.SIGTERM
    with (out / "rules.log").open() as log:
        size = len(log.read())
        time.sleep(1)
        assert log.read() == "", size  # nothing trains any more


@pytest.mark.parametrize(("backend", "times"), [("gpu", (4.0, 3.0)), ("cpu", (4.0, None))])
def test_accelerators_are_measured_in_both_precisions(backend, times) -> None:
    def run_one(name, widths, repeats, precision):
        return {"name": name, "widths": widths, "seconds_min": {FULL: 4.0, FAST: 3.0}[precision]}

    found = {"machine": {"device": "one", "backend": backend}}
    accelerator._measure(found, "small", run_one, float("inf"), lambda: None)
    for row in found["benchmarks"].values():
        assert (row["seconds_min"], row.get("seconds_min_tensorfloat32")) == times


def test_one_training_shows_what_the_faster_precision_changes() -> None:
    by_name = {training.name: training for training in TRAININGS}
    assert by_name["anml"].settings == ("--preset", "paper")
    assert by_name["anml-tf32"].settings == ("--preset", "paper", "--precision", FAST)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--slice", "0"], "--slice must be positive, but is 0.0"),
        (["--only", "ruls"], "no training 'ruls': .*nearest is rules"),
    ],
)
def test_bad_input_is_named(arguments, sentence, tmp_path, capsys) -> None:
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_every_training_is_an_experiment() -> None:
    assert {training.experiment for training in TRAININGS} <= set(experiments())
    choose([training.benchmark for training in TRAININGS])
