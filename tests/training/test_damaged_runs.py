"""Damaged metrics, configs and names of steps: repaired with a warning, or named."""

import json
import os
import shutil
import warnings

import pytest
from toy_training import ToyConfig, same_bits, train_toy, without_times

from tsar_jax import cli
from tsar_jax.cli.status import status
from tsar_jax.errors import UserError
from tsar_jax.training import metrics
from tsar_jax.training.checkpoints import load_checkpoint
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.overview import describe_run, runs_text
from tsar_jax.training.run import checkpoint_steps, read_description

CONFIG = ToyConfig(steps=10)
DEEP = "[" * 200_000


NO_ROWS = [
    '{"step": "5", "split": "train", "wall_s": 1}',
    '{"step": null, "split": "train"}',
    '{"step": [5], "split": "train"}',
    '{"step": true, "split": "train"}',
    '{"step": 5.0, "split": "train"}',
    '{"step": NaN, "split": "train"}',
    '{"step": -1, "split": "train"}',
    '{"step": ' + "9" * 30 + ', "split": "train"}',
    '{"step": ' + "9" * 5000 + ', "split": "train"}',
    '{"step": 5}',
    '{"step": 5, "split": ["train"]}',
    '{"step": 5, "split": "train", "loss": "\\u001b[2J"}',
    '{"step": 5, "split": "train", "loss": [1]}',
    "5",
    "garbage",
    DEEP,
    '{"a":' * 100_000,
]


@pytest.mark.parametrize("line", NO_ROWS, ids=lambda line: line[:40])
def test_a_line_that_is_no_row_is_left_out_with_a_warning(run, line) -> None:
    path = run / "metrics.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, line + "\n", *rest]))
    with pytest.warns(UserWarning, match="has 1 lines that are no rows: they are left out"):
        rows = read_rows(run)
    assert [json.loads(row) for row in (first, *rest)] == rows
    assert "last eval    step 10" in status(run)


def test_repeated_rows_count_once_and_all_are_in_order(finished, run) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[::-1], *lines[:2]]))
    with pytest.warns(UserWarning, match="has 2 lines that repeat another's step"):
        trained = train_toy(run, CONFIG, resume=True)
    assert trained.metrics == finished[1].metrics
    assert same_bits(trained.state, finished[1].state)


def test_lost_rows_below_the_checkpoint_are_told(finished, run) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for kept, lost in (
        (lines[1:], r"1 of 4 .* of train at step 5"),
        ([], "4 of 4"),
        (lines[:-1], "1 of 4 .* eval"),
    ):
        path.write_text("".join(kept))
        with pytest.warns(UserWarning, match=f"has lost {lost}"):
            trained = train_toy(run, CONFIG, resume=True)
        assert len(trained.metrics) == len(kept)
        assert same_bits(trained.state, finished[1].state)


def test_a_whole_run_is_resumed_without_a_warning(run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_toy(run, CONFIG, resume=True)


def test_rows_without_their_times_are_resumed(run) -> None:
    path = run / "metrics.jsonl"
    kept = [row for row in without_times(read_rows(run)) if row["step"] <= 7]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    shutil.rmtree(run / "checkpoints" / "10")
    assert train_toy(run, CONFIG, resume=True).step == 10


@pytest.mark.parametrize("line", ["\n", " \n", "x\n", "5\n", '{"step": 1}\n'])
def test_a_file_of_damaged_lines_is_refused(run, line) -> None:
    path = run / "metrics.jsonl"
    rows = read_rows(run)
    with path.open("a") as file:
        file.write(line * metrics.MAX_DAMAGED)
    with pytest.warns(UserWarning, match="lines that are no rows"):
        assert read_rows(run) == rows
    with path.open("a") as file:
        file.write(line)
    with pytest.raises(UserError, match=r"more than 5000 lines that are no rows of metrics: move"):
        read_rows(run)


def test_only_what_could_be_a_row_is_parsed(run, monkeypatch) -> None:
    parsed = []
    monkeypatch.setattr(metrics, "parse_json", lambda line: parsed.append(line) or {})
    (run / "metrics.jsonl").write_text("\n" * 100 + "[5]\n" * 100 + "{}\n" + "{" * 10**6)
    with pytest.warns(UserWarning, match="201 lines"):
        read_rows(run)
    assert parsed == ["{}\n"]


def test_the_list_of_runs_shows_nothing_whole_and_reads_only_the_end(run, monkeypatch) -> None:
    monkeypatch.setattr(metrics, "MAX_FILE", 0)
    assert "test_loss" in runs_text(run)
    stored = read_description(run)
    stored |= {"experiment": "e" * 9000, "preset": ["p"] * 9000, "steps": "s" * 9000}
    (run / "config.json").write_text(json.dumps(stored))
    row = {"step": 10, "split": "eval", "m" * 9000: 1.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    said = runs_text(run).splitlines()[1]
    assert len(said) < 1000
    assert "eee..." in said
    assert "mmm... 1" in said


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"result": "It plays."}, "It plays."),
        ({"result": "x" * 900}, "x" * 77 + "..."),
        ({"result": ["x"]}, ""),
        ([], ""),
    ],
)
def test_a_run_that_came_with_the_package_shows_its_result(run, told, shown) -> None:
    (run / "pretrained.json").write_text(json.dumps(told))
    assert "test_loss" in describe_run(run)[-1]
    (run / "metrics.jsonl").unlink()
    assert describe_run(run)[-1] == shown


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.write_text("")])
def test_the_status_tells_of_checkpoints_that_are_no_folder(run, make) -> None:
    shutil.rmtree(run / "checkpoints")
    make(run / "checkpoints")
    assert "checkpoints is no folder: move it away" in status(run)


def make_fifo(path):
    os.mkfifo(path)


def make_folder(path):
    path.mkdir()


def make_huge(path):
    with path.open("wb") as file:
        file.truncate(150_000_000)


@pytest.mark.parametrize("make", [make_fifo, make_folder, make_huge])
@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json"])
def test_what_is_no_such_file_is_named(run, name, make) -> None:
    (run / name).unlink()
    make(run / name)
    said = status(run)
    assert "step         10 of" in said
    if name == "config.json":
        assert f"{name} cannot be read (it is" in said
        with pytest.raises(UserError, match=r"config\.json cannot be read"):
            read_description(run)
    else:
        with pytest.raises(UserError, match=r"metrics\.jsonl is"):
            read_rows(run)
        with pytest.raises(UserError, match=r"metrics\.jsonl is"):
            train_toy(run, CONFIG, resume=True)


def test_huge_metrics_are_not_read_whole_for_the_status(run, monkeypatch) -> None:
    monkeypatch.setattr(metrics, "MAX_FILE", 0)
    row = '{"step": 4, "split": "train", "loss": 2.5}\n'
    (run / "metrics.jsonl").write_text(" " * (2 * metrics.TAIL) + "\n" + row)
    assert "last train   step 4  loss 2.5" in status(run)


ODD = ["²", "٣", "007", "9" * 200, str(2**31), "½"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_of_steps_are_set_aside(finished, run, name) -> None:
    (run / "checkpoints" / name).mkdir()
    assert checkpoint_steps(run / "checkpoints") == checkpoint_steps(finished[0] / "checkpoints")
    assert "is no step, and is moved" in status(run)
    assert load_checkpoint(run, like=finished[1].state)[1] == 10
    with pytest.warns(UserWarning, match="is no step of a checkpoint, moved to"):
        trained = train_toy(run, ToyConfig(steps=10), resume=True)
    assert trained.step == 10
    assert not (run / "checkpoints" / name).exists()
    assert len(list((run / "damaged_checkpoints").iterdir())) == 1


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"config": {"steps": ' + "1" * 5000 + "}}",
        '{"config": ' + '{"a": ' * 99 + "1" + "}" * 100,
    ],
)
def test_configs_that_no_one_wrote_are_named(run, text) -> None:
    (run / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json cannot be read \(it"):
        read_description(run)
    assert "config.json cannot be read" in status(run)


def test_the_status_of_a_folder_that_is_no_run_is_an_error(tmp_path, capsys) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SystemExit) as ended:
        cli.run_main(lambda: cli.command(["status", str(tmp_path)]))
    assert ended.value.code == 2
    assert "is not a run folder, for it has no config.json" in capsys.readouterr().err


def test_the_status_shows_nothing_raw_and_nothing_whole(run) -> None:
    stored = read_description(run)
    stored |= {"experiment": "\x1b[2J" * 1000, "preset": ["\x9b"], "steps": "\x07"}
    stored["config"] |= {"\x1b[31m": "\x7f" * 9000} | {f"a{i}": i for i in range(1000)}
    (run / "config.json").write_text(json.dumps(stored))
    row = {"step": 10, "split": "eval", "\x1b[2J" * 100: 1.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    said = status(run)
    assert all(char.isprintable() or char == "\n" for char in said)
    assert len(said) < 30_000
    assert "\\x1b[2J" in said
