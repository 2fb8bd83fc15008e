"""A run's folder that is deleted, moved or cannot be written, while its training goes on."""

import contextlib
import dataclasses
import errno
import io
import logging
import os
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from toy_training import Quiet, ToyConfig, make_data, make_toy, same_bits, train_toy, without_times

from tsar_jax import cli
from tsar_jax.atomic import replacing
from tsar_jax.errors import UserError
from tsar_jax.training import loop, rescue
from tsar_jax.training.checkpoints import CheckpointWriter
from tsar_jax.training.errors import TrainingDiverged, TrainingInterrupted
from tsar_jax.training.loop import train
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import PRETRAINED, Run, checkpoint_steps

CONFIG = ToyConfig(steps=20, chunk=5, eval_every=10, checkpoint_every=5, keep=9)


class At(Quiet):
    """Progress that does something once a step is reached."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def update(self, step, *_):
        if step == self.step:
            self.what()


def train_until(path, step, what, config=CONFIG, resume=False):
    run = Run(path, config, "toy", "cpu", resume)
    data = make_data(config.inputs)
    return train(make_toy(config), data, config, run, progress=At(step, what))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train_toy(tmp_path_factory.mktemp("whole") / "run", CONFIG)


@pytest.mark.parametrize("how", ["deleted", "moved", "its checkpoints", "its metrics", "replaced"])
def test_a_folder_that_is_gone_is_noticed_and_the_state_saved_elsewhere(tmp_path, whole, how):
    path = tmp_path / "run"

    def lose():
        while checkpoint_steps(path / "checkpoints")[-1] < 10:  # the save may still go on
            time.sleep(0.01)
        if how == "moved":
            path.rename(tmp_path / "moved")
        elif how == "its metrics":
            (path / "metrics.jsonl").unlink()
        else:
            shutil.rmtree(path / "checkpoints" if how == "its checkpoints" else path)
        if how == "replaced":
            (path / "checkpoints").mkdir(parents=True)

    with pytest.raises(UserError, match="was deleted or moved while its training") as error:
        train_until(path, 10, lose)
    if how in ("deleted", "moved"):
        assert not path.exists()
    [rescued] = tmp_path.glob("run-rescued-*")
    assert str(error.value).endswith(
        f"the state of step 15 is saved in {rescued}; continue with: "
        f"tsar-jax run toy --resume {rescued}"
    )
    assert checkpoint_steps(rescued / "checkpoints") == [15]
    resumed = train_toy(rescued, CONFIG, resume=True)
    assert same_bits(resumed.state, whole.state)
    assert without_times(resumed.metrics) == without_times(whole.metrics)


@pytest.mark.filterwarnings("error:.*has lost")
def test_a_rescued_run_that_came_trained_misses_no_rows(tmp_path, whole):
    path = tmp_path / "run"
    with pytest.raises(TrainingInterrupted):
        train_until(path, 5, lambda: signal.raise_signal(signal.SIGTERM))
    for name in ("metrics.jsonl", "metrics.csv"):
        (path / name).unlink()
    (path / PRETRAINED).write_text('{"result": "0.5"}')

    def lose():
        wait_for_save(path, 15)
        shutil.rmtree(path)

    with pytest.raises(UserError, match="was deleted or moved while its training"):
        train_until(path, 15, lose, resume=True)
    [rescued] = tmp_path.glob("run-rescued-*")
    assert (rescued / PRETRAINED).read_text() == '{"result": "0.5"}'
    resumed = train_toy(rescued, CONFIG, resume=True)
    assert same_bits(resumed.state, whole.state)
    kept = [row for row in whole.metrics if row["step"] > 10]
    assert without_times(resumed.metrics) == without_times(kept)


def test_where_nothing_can_be_saved_nothing_is_called_saved(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lose():
        while checkpoint_steps(tmp_path / "run" / "checkpoints")[-1] < 10:
            time.sleep(0.01)
        shutil.rmtree(tmp_path / "run")
        monkeypatch.setattr(rescue, "MetricsWriter", full)

    with pytest.raises(UserError, match=r"not be saved elsewhere \(No space left on device\)"):
        train_until(tmp_path / "run", 10, lose)
    assert list(tmp_path.iterdir()) == []


LIMITS = resource.getrlimit(resource.RLIMIT_FSIZE)


def allow_files_of(size):
    """Make larger files impossible, as a full disk would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, LIMITS[1]))


def wait_for_save(path, step):
    """Return when a run's checkpoint of a step is whole; a training saves in the background."""
    while checkpoint_steps(path / "checkpoints")[-1] < step:
        time.sleep(0.01)


@contextlib.contextmanager
def afterwards_any():
    """Allow files of any size again when the block ends: pytest writes to one."""
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, LIMITS)


def test_a_checkpoint_that_cannot_be_written_is_a_sentence(tmp_path):
    config = ToyConfig(
        steps=20, chunk=5, eval_every=None, checkpoint_every=5, inputs=20_000, keep=9
    )
    path = tmp_path / "run"

    def fill():
        wait_for_save(path, 5)
        allow_files_of(20_000)

    message = r"cannot be written \(File too large\)"
    with pytest.raises(UserError, match=message) as error, afterwards_any():
        train_until(path, 5, fill, config)
    assert str(error.value).endswith(f"continue from step 5 with: tsar-jax run toy --resume {path}")
    assert checkpoint_steps(path / "checkpoints") == [0, 5]
    resumed = train_toy(path, config, resume=True)
    assert same_bits(resumed.state, train_toy(tmp_path / "whole", config).state)


def test_metrics_that_cannot_be_written_are_a_sentence(tmp_path, whole):
    path = tmp_path / "run"

    def fill():
        wait_for_save(path, 10)
        allow_files_of((path / "metrics.jsonl").stat().st_size + 10)

    message = r"run cannot be written \(File too large\): make room"
    with pytest.raises(UserError, match=message), afterwards_any():
        train_until(path, 10, fill)
    resumed = train_toy(path, CONFIG, resume=True)
    assert same_bits(resumed.state, whole.state)
    assert without_times(read_rows(path)) == without_times(whole.metrics)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_does_not_hang_tensorboard(tmp_path, whole, monkeypatch):
    """SummaryWriter of tensorboardX waits for ever for the thread that the error ended."""
    pytest.importorskip("tensorboardX")
    path, config = tmp_path / "run", dataclasses.replace(CONFIG, tensorboard=True)
    with monkeypatch.context() as full:
        opener = "tensorboardX.record_writer.open_file"
        full.setattr(opener, lambda _: io.BufferedWriter(io.FileIO("/dev/full", "wb")))
        message = r"run cannot be written \(No space left on device\): make room"
        with pytest.raises(UserError, match=message):
            train_toy(path, config)
    resumed = train_toy(path, config, resume=True)
    assert same_bits(resumed.state, whole.state)
    assert len(list((path / "tensorboard").iterdir())) == 1


def test_any_other_file_that_cannot_be_written_is_a_sentence(tmp_path, capsys):
    path = tmp_path / "figure.png"

    def write():
        with afterwards_any(), replacing(path) as file:
            allow_files_of(10)
            file.write(bytes(1000))
            file.flush()

    with pytest.raises(SystemExit) as ended:
        cli.run_main(write)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {path} cannot be written (File too large): make room, or name another folder, and "
        "repeat the command; a training goes on with --resume.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_taken_for_a_full_disk():
    def fail():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")

    with pytest.raises(FileNotFoundError):
        cli.run_main(fail)


def test_closing_after_a_failed_save_is_silent(tmp_path, capfd, monkeypatch):
    said = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: said.append(failed.exc_value))
    hook = threading.excepthook
    level = logging.getLogger("absl").level
    writer = CheckpointWriter(tmp_path / "checkpoints", keep=1)
    with afterwards_any():
        allow_files_of(20_000)
        writer.save(1, {"a": np.arange(100_000)}, {})
        while not ended(writer):
            time.sleep(0.01)
        other = ValueError("of another thread")
        thread = threading.Thread(target=throw, args=[other])
        thread.start()
        thread.join()
    writer.close()
    assert said == [other]
    assert capfd.readouterr().err == ""
    assert threading.excepthook is hook
    assert logging.getLogger("absl").level == level


def throw(error):
    raise error


def ended(writer):
    return not writer._manager.is_saving_in_progress()


def test_that_training_diverged_is_told_where_a_save_failed_too(tmp_path):
    config = ToyConfig(
        steps=20, chunk=5, eval_every=None, checkpoint_every=5, inputs=20_000, keep=9, nan_at=12
    )
    path = tmp_path / "run"

    def fill():
        wait_for_save(path, 5)
        allow_files_of(20_000)

    message = r"last good checkpoint is that of step 5"
    with pytest.raises(TrainingDiverged, match=message), afterwards_any():
        train_until(path, 5, fill, config)


def test_an_error_of_the_evaluation_is_no_full_disk(tmp_path, monkeypatch):
    def evaluate(self, state, step):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "a file of the environment's")

    monkeypatch.setattr(loop._Trainer, "_evaluate", evaluate)
    with pytest.raises(OSError, match="file of the environment's"):
        train_toy(tmp_path / "run", CONFIG)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_file_that_may_not_be_used_is_a_sentence(capsys, number):
    def fail():
        raise PermissionError(number, os.strerror(number), "x")

    with pytest.raises(SystemExit) as ended:
        cli.run_main(fail)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: x cannot be used ({os.strerror(number)})")
    assert rescue.reason(Exception(f"{os.strerror(number)} [OS error]")) == os.strerror(number)
