"""The continual-learning scripts from their command lines: end to end, resumed, and bad input."""

import json
import shutil

import numpy as np
import pytest
from commands import command, failure

from experiments import continual_analyse, continual_table, continual_train
from tsar_jax.systems.continual.experiment import prepare
from tsar_jax.systems.continual.measures import measures, read_outcome
from tsar_jax.systems.continual.system import ContinualConfig
from tsar_jax.training.run import load_config

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two methods on two tasks of packaged digits, 2 seeds."""
    path = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        command(continual_table, "--preset", "smoke", "--out", path, monkeypatch=patch)
    return path


def test_a_table_has_its_runs_its_tables_and_its_figures(table) -> None:
    lines = (table / "accuracy.md").read_text().splitlines()
    assert lines[0] == "| method | buffer 64 |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| sgd", "| er"]
    rows = (table / "measures.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2
    assert "Backward transfer" in (table / "measures.md").read_text()
    for name in ("curves.png", "accuracy.pdf"):
        assert (table / "figures" / name).stat().st_size > 5_000
    assert (table / "values.md").read_text() == (
        "- sgd: values of sgd on rot-mnist in the release of SYNERgy: nothing is published for sgd "
        "on rot-emnist\n"
        "- er-64: values of er on rot-mnist, buffer 200 in the release of SYNERgy: nothing is "
        "published for er on rot-emnist, buffer 64\n"
    )
    outcome = read_outcome(table / "runs" / "er-64")
    assert 0.5 < measures(outcome)["accuracy"].mean() <= 1


def test_a_finished_table_is_not_run_again(table, tmp_path, monkeypatch, capsys) -> None:
    table = shutil.copytree(table, tmp_path / "table")
    before = (table / "runs" / "sgd" / "metrics.jsonl").stat().st_mtime_ns
    arguments = ("--preset", "smoke", "--out", table)
    command(continual_table, *arguments, "--only-tabulate", monkeypatch=monkeypatch)
    others = ("--methods", "sgd", "--buffers", 100, "--only-tabulate")
    command(continual_table, *arguments, *others, monkeypatch=monkeypatch)
    assert (table / "runs" / "sgd" / "metrics.jsonl").stat().st_mtime_ns == before
    said = failure(
        continual_table, *arguments, "--seeds", 3, monkeypatch=monkeypatch, capsys=capsys
    )
    assert "is a run with seeds 2, not 3" in said
    said = failure(
        continual_table,
        *(*arguments, "--methods", "der", "--only-tabulate"),
        monkeypatch=monkeypatch,
        capsys=capsys,
    )
    assert "leave out --only-tabulate" in said


def test_a_run_resumed_within_a_task_ends_at_the_same_bits(
    table, tmp_path, monkeypatch, capsys
) -> None:
    whole = table / "runs" / "er-64"
    half = tmp_path / "half"
    arguments = [
        *("--preset", "smoke", "--out", half, "--method", "er", "--seeds", 2),
        *("--checkpoint-every", 30, "--chunk", 30, "--keep", 20),
    ]
    command(continual_train, *arguments, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert "hyper-parameters not given: values of er on rot-mnist, buffer 200 in the" in said
    first = (half / "result.json").read_text()
    assert (
        json.loads(first)["accuracy"] == json.loads((whole / "result.json").read_text())["accuracy"]
    )
    state = sorted(int(path.name) for path in (half / "checkpoints").iterdir())
    assert 60 in state
    assert state[-1] == 200
    for step in state:
        if step > 60:
            shutil.rmtree(half / "checkpoints" / str(step))
    (half / "result.json").unlink()
    command(continual_train, "--resume", half, monkeypatch=monkeypatch)
    assert (half / "result.json").read_text() == first


def test_runs_are_analysed(table, tmp_path, monkeypatch, capsys) -> None:
    runs = [table / "runs" / name for name in ("sgd", "er-64")]
    command(
        continual_analyse,
        *("--runs", *runs, "--out", tmp_path, "--draws", 1, "--deviations", 0, 0.1),
        monkeypatch=monkeypatch,
    )
    content = json.loads((tmp_path / "analysis.json").read_text())
    outcome = read_outcome(runs[1])
    found = content["er, buffer 64"]
    assert found["noise"][0] == pytest.approx(measures(outcome)["accuracy"].mean(), abs=1e-5)
    assert found["noise"][1] < found["noise"][0]
    assert 0 < found["expected_calibration_error"] < 1
    assert np.allclose(found["task_accuracy"], outcome.matrix()[:, -1].mean(0))
    for name in ("tasks", "calibration", "noise", "trade_off"):
        assert (tmp_path / "figures" / f"{name}.png").exists()


def test_gcil_on_held_out_images_has_two_accuracies(tmp_path, monkeypatch, capsys) -> None:
    command(
        continual_table,
        *("--preset", "smoke", "--out", tmp_path, "--stream", "gcil-emnist-noise"),
        *("--methods", "sgd", "--seeds", 1, "--tasks", 3, "--phase-size", 64),
        *("--phase-classes", 4, "--pretrain-classes", 2, "--schedule-seed", 1, "--validation"),
        monkeypatch=monkeypatch,
    )
    told = capsys.readouterr().out
    assert "average accuracy over the cumulative tests of all phases: " in told
    prepared = prepare(load_config(tmp_path / "runs" / "sgd", ContinualConfig))
    assert "of its training images, not on its test images" in prepared.source
    data = prepared.experiment.stream.data
    assert len(data["test_labels"]) == len(data["labels"]) // 9
    outcome = read_outcome(tmp_path / "runs" / "sgd")
    assert outcome.settings["validation"] is True
    assert outcome.settings["pretrain_classes"] == 2
    average, last = (measures(outcome)[name][0] for name in ("accuracy", "last_accuracy"))
    lines = (tmp_path / "accuracy.md").read_text().splitlines()
    assert lines[0] == "Average accuracy over the cumulative tests of all phases (%)"
    assert lines[4] == f"| sgd | {100 * average:.2f} |"
    assert lines[6] == "Accuracy on all classes seen (%)"
    assert lines[10] == f"| sgd | {100 * last:.2f} |"
    head, row = (tmp_path / "measures.csv").read_text().splitlines()
    column = head.split(",").index("last_accuracy")
    assert row.split(",")[column] == f"{last:.6f}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "magic"), "There is no method 'magic': choose from sgd"),
        (("--published", "mammoth"), "invalid choice 'mammoth'"),
        (("--method.magic", "1"), "There is no flag --method.magic"),
        (("--method.reg-weigth", "1"), "nearest is --method.reg-weight"),
        (("--method", "er", "--method.alpha", "1"), "There is no flag --method.alpha"),
        (("--method.ema-alpha", "2"), "ema_alpha must be from 0 to 1, but is 2.0"),
        (("--buffer", "16"), "smaller than a draw of 32"),
        (("--stream", "turn-emnist"), "There is no stream 'turn-emnist'"),
        (("--stream", "rot-nothing"), "unknown data set 'nothing'"),
        (("--stream", "emnist-360"), "no task boundaries"),
        (("--stream", "emnist-360", "--tasks", "None", "--method", "si"), "Method si cannot learn"),
        (("--steps", "100000"), "has only 200"),
        (("--buffer", "0"), "buffer must be at least 1"),
        (("--phase-classes", "0"), "phase_classes must be at least 1"),
        (("--schedule-seed", "-1"), "schedule_seed must be in [0, 2**32)"),
        (("--pretrain-classes", "3"), "rot-emnist has no pretrain_classes"),
    ],
)
def test_bad_input_is_named_before_any_work(arguments, said, tmp_path, monkeypatch, capsys) -> None:
    told = failure(
        continual_train,
        *("--preset", "smoke", "--out", tmp_path / "run", *arguments),
        monkeypatch=monkeypatch,
        capsys=capsys,
    )
    assert said in told
    assert not (tmp_path / "run" / "checkpoints").exists()
