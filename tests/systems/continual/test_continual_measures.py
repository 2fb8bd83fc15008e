"""Measures of continual learning on matrices whose values are known, and their files."""

import dataclasses
import json

import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.systems.continual.measures import (
    Outcome,
    average_accuracy,
    backward_transfer,
    csv_table,
    forgetting,
    forward_transfer,
    last_accuracy,
    main_measure,
    markdown_table,
    mean_and_deviation,
    measure_title,
    measures,
    read_outcome,
    write_outcome,
)
from tsar_jax.systems.continual.probes import Predictions, reliability, trade_off

MATRIX = np.array([[0.9, 0.2, np.nan], [0.95, 0.8, 0.3], [0.5, 0.6, 0.7]])
UNTRAINED = np.array([0.1, 0.1, 0.1])


def outcome(method="er", buffer=200, matrix=MATRIX, **changes):
    """Two seeds and two models, the second one reported and better by 0.01 in the second seed."""
    accuracy = np.stack([matrix, matrix])[..., None, None] * np.ones((1, 1, 1, 2, 2))
    accuracy[1, :, :, 1] += 0.01
    fields = {
        "method": method,
        "stream": "seq-toy",
        "buffer": buffer,
        "seeds": (3, 2),
        "models": ("working", "semantic"),
        "reported": "semantic",
        "kind": "class",
        "cumulative": False,
        "accuracy": accuracy,
        "untrained": np.stack([UNTRAINED, UNTRAINED]),
        "settings": {"lr": 0.1},
    }
    return Outcome(**{**fields, **changes})


def test_measures_are_those_of_their_definitions() -> None:
    assert average_accuracy(MATRIX) == pytest.approx(0.6)
    assert last_accuracy(MATRIX) == pytest.approx(0.7)
    assert backward_transfer(MATRIX) == pytest.approx(((0.5 - 0.9) + (0.6 - 0.8)) / 2)
    assert forward_transfer(MATRIX, UNTRAINED) == pytest.approx((0.1 + 0.2) / 2)
    assert forgetting(MATRIX) == pytest.approx(((0.95 - 0.5) + (0.8 - 0.6)) / 2)
    found = measures(outcome())
    assert found["accuracy"].tolist() == pytest.approx([0.6, 0.61])
    assert found["task_accuracy"].tolist() == pytest.approx([0.6, 0.61])


def test_cumulative_tests_have_their_mean_and_the_last() -> None:
    found = measures(outcome(cumulative=True))
    assert found["accuracy"].tolist() == pytest.approx([0.6, 0.61])
    assert found["last_accuracy"].tolist() == pytest.approx([0.7, 0.71])
    assert set(found) == {"accuracy", "last_accuracy"}
    title = "average accuracy over the cumulative tests of all phases"
    assert measure_title("accuracy", cumulative=True) == title
    assert measure_title("accuracy", cumulative=False) == "average accuracy"


def test_a_result_with_the_last_cumulative_test_alone_is_still_read(tmp_path) -> None:
    old = outcome(cumulative=True, matrix=np.where(np.eye(3, dtype=bool), MATRIX, np.nan))
    write_outcome(tmp_path, old)
    read = read_outcome(tmp_path)
    assert measures(read)["last_accuracy"].tolist() == pytest.approx([0.7, 0.71])
    assert "accuracy" not in measures(read)
    assert main_measure([read]) == "last_accuracy"
    assert main_measure([outcome(cumulative=True)]) == "accuracy"


def test_the_trade_off_is_a_harmonic_mean() -> None:
    found = trade_off(outcome())
    assert found["stability"][0] == pytest.approx(0.55)
    assert found["plasticity"][0] == pytest.approx(0.8)
    assert found["trade_off"][0] == pytest.approx(2 / (1 / 0.55 + 1 / 0.8))


def test_calibration_error_of_known_confidences() -> None:
    """Two bins: .8 sure and half right; .3 sure and all right. One image is not there."""
    predictions = Predictions(
        confidence=np.array([[0.8, 0.8, 0.3, 0.99]]),
        right=np.array([[1, 0, 1, 0]]),
        mask=np.array([[1, 1, 1, 0]]),
        task_probability=np.zeros((1, 1)),
    )
    found = reliability(predictions, bins=2)
    assert found.share.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert found.accuracy.tolist() == pytest.approx([1, 0.5])
    assert found.error == pytest.approx(0.7 / 3 + 0.3 * 2 / 3)


def test_an_outcome_survives_its_file(tmp_path) -> None:
    written = outcome()
    write_outcome(tmp_path, written)
    read = read_outcome(tmp_path)
    np.testing.assert_array_equal(read.accuracy, written.accuracy)
    assert read.models == written.models
    assert read.seeds == (3, 2)
    lines = (tmp_path / "accuracy.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2 * 8  # header; seeds, models, tests measured
    assert lines[1] == "3,working,0,0,0.900000,0.900000"


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"format": 9}, "format"),
        ({"reported": "nobody"}, "not in"),
        ({"accuracy": [[1.0]]}, "another shape"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_damaged_outcome_is_named(tmp_path, change, wrong) -> None:
    with pytest.raises(UserError, match=r"has no result\.json"):
        read_outcome(tmp_path)
    write_outcome(tmp_path, outcome())
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=wrong):
        read_outcome(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_outcome(tmp_path)


def test_tables_have_methods_and_buffers() -> None:
    outcomes = [outcome("sgd", 0), outcome("er", 200), outcome("er", 500)]
    assert markdown_table(outcomes, "accuracy").splitlines() == [
        "| method | buffer 200 | buffer 500 |",
        "|---|---|---|",
        "| sgd | 60.00, 61.00 | 60.00, 61.00 |",
        "| er | 60.00, 61.00 | 60.00, 61.00 |",
    ]
    rows = csv_table(outcomes).splitlines()
    assert len(rows) == 1 + 3 * 2 * 2
    assert rows[1].startswith("seq-toy,sgd,,3,working,0.600000")
    assert mean_and_deviation(np.array([0.5])) == "50.00"
    assert mean_and_deviation(np.array([0.5, 0.6, 0.7])) == "60.00 ± 10.00"
    assert mean_and_deviation(np.array([0.9, 1.0, 1.0])) == "96.67 (90.89 to 100.00)"
    assert mean_and_deviation(np.array([0.5, 0.6, np.nan])) == "50.00, 60.00 (1 of 3 lost)"


def test_tables_have_what_is_published_of_the_stream() -> None:
    cells = [("sgd", 0), ("joint", 0), ("er", 200), ("er", 300), ("er", 1000)]
    outcomes = [outcome(*cell, stream="gcil-cifar100-longtail") for cell in cells]
    lines = markdown_table(outcomes, "accuracy").splitlines()
    assert lines[0] == "| method | buffer 200 | buffer 300 | buffer 1000 | published |"
    assert lines[1] == "|---|---|---|---|---|"
    assert [line.split(" | ")[-1] for line in lines[2:5]] == [
        *(" |", "56.94 ± 1.56 (T) |", "19.27 / – / 34.13 (T) |")
    ]
    assert lines[-1].startswith("Published: full-size networks and streams, same buffers. P: prim")
    assert "published" not in markdown_table(outcomes, "forgetting")
    tiny = outcome("clser", 500, stream="seq-tiny_imagenet")
    assert "| 31.03 (P) |" in markdown_table([tiny], "accuracy")
    held_out = dataclasses.replace(tiny, settings={"validation": True})
    assert "published" not in markdown_table([held_out], "accuracy")
    for tasks, shown in ((5, True), (10, False)):
        matrix = np.zeros((1, tasks, tasks, len(tiny.models), 2))
        of_hundred = dataclasses.replace(
            tiny, stream="seq-cifar100", accuracy=matrix, untrained=matrix[:, 0, :, 0, 0]
        )
        assert ("51.40 (P)" in markdown_table([of_hundred], "accuracy")) == shown
    assert "| 60.41 (P) |" in markdown_table([tiny], "task_accuracy")
