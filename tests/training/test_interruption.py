"""Signals and kills, sent to a script that trains: what is left continues to the same bits."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from toy_training import (
    Quiet,
    ToyConfig,
    make_data,
    make_toy,
    same_bits,
    train_toy,
    without_times,
)

from tsar_jax.training.checkpoints import load_checkpoint
from tsar_jax.training.interruption import caught_signals
from tsar_jax.training.loop import train
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import Run, checkpoint_steps

SCRIPT = Path(__file__).with_name("toy_training.py")


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


PATIENCE = 600.0
"""Seconds for what takes a few, so that a slow and busy machine is no failure."""


def wait_for(condition, process) -> None:
    """Returns when the condition holds or the process has ended."""
    end = time.monotonic() + PATIENCE
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def load(path, config):
    return load_checkpoint(path, like=jax.eval_shape(make_toy(config).init, jax.random.key(0)))


def test_killed_at_ten_moments_it_ends_at_the_same_bits(tmp_path):
    config = ToyConfig(steps=400, checkpoint_every=5, eval_every=50)
    whole = train_toy(tmp_path / "whole", config)
    path = tmp_path / "run"
    flags = ["--steps", 400, "--eval-every", 50]
    rng = random.Random(0)
    saves_cut_short = 0
    for kill in range(10):
        resumable = (path / "config.json").exists()
        process = start(*(["--resume", path] if resumable else ["--out", path, *flags]))
        process.stdout.readline()  # "begin": the imports are done
        known = newest(path)
        if kill % 2:
            # In the midst of a save that this process began.
            wait_for(lambda: newest(path) != known, process)  # noqa: B023
            while not stopped_within_a_save(path, process, rng.uniform(0.0, 0.02)):
                process.send_signal(signal.SIGCONT)
        else:
            # At any moment; but where the machine is fast, before it can reach the end.
            moment = time.monotonic() + rng.uniform(0.0, 1.5)
            furthest = known + 15
            wait_for(lambda: time.monotonic() > moment or newest(path) >= furthest, process)  # noqa: B023
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        saves_cut_short += saving(path)
    assert saves_cut_short >= 5
    process = start("--resume", path)
    assert process.communicate()[0] == "begin\nend 400\n"
    assert process.returncode == 0
    state, step = load(path, config)
    assert step == 400
    assert same_bits(state, whole.state)
    assert without_times(read_rows(path)) == without_times(whole.metrics)
    assert not saving(path)


def stopped_within_a_save(path, process, delay) -> bool:
    """Stop a process some seconds after it is seen to save: whether it is saving still, or ended.

    A process that is stopped can be killed, but saves no further until then.
    """
    wait_for(lambda: saving(path), process)
    time.sleep(delay)
    process.send_signal(signal.SIGSTOP)
    # WNOWAIT: what became of the process is left for `Popen` to learn.
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return saving(path) or process.poll() is not None


def newest(path) -> int:
    return max(checkpoint_steps(path / "checkpoints"), default=0)


def saving(path) -> bool:
    """Whether a save is under way in the folder, or was when its process was killed."""
    return any((path / "checkpoints").glob("*tmp*"))


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
)
def test_signal_finishes_the_chunk_saves_and_says_how_to_resume(tmp_path, signum, code):
    path = tmp_path / "run"
    # A chunk takes a moment, all of them far longer than it can be until the signal is sent.
    config = ToyConfig(steps=200, chunk=4, eval_every=None, checkpoint_every=None, work=10_000_000)
    flags = ["--steps", 200, "--chunk", 4, "--eval-every", None, "--checkpoint-every", None]
    process = start("--out", path, *flags, "--work", config.work)
    wait_for(lambda: read_rows(path), process)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    step = checkpoint_steps(path / "checkpoints")[-1]
    assert 0 < step < 200
    assert step % 4 == 0
    assert read_rows(path)[-1]["step"] == step
    assert "finishing the present chunk" in errors
    assert (
        f"stopped at step {step} of 200, saved; continue with: tsar-jax run toy --resume" in errors
    )
    assert "Traceback" not in errors
    idle = make_toy(dataclasses.replace(config, work=0))
    run = Run(path, config, "toy", "cpu", resume=True)
    resumed = train(idle, make_data(), config, run, progress=Quiet())
    assert resumed.step == 200
    assert [row["step"] for row in resumed.metrics if row["split"] == "train"] == [
        *range(4, 201, 4)
    ]


def test_second_ctrl_c_stops_within_a_chunk(tmp_path):
    path = tmp_path / "run"
    flags = ["--steps", 1000, "--chunk", 1000, "--eval-every", None, "--checkpoint-every", None]
    process = start("--out", path, *flags, "--work", 2_000_000_000)
    wait_for(lambda: checkpoint_steps(path / "checkpoints") == [0], process)
    time.sleep(1.5)  # into the first chunk, which would take hours
    process.send_signal(signal.SIGINT)
    assert any("finishing the present chunk" in line for line in process.stderr)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "stopped at once" in errors
    assert not read_rows(path)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with caught_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            assert received() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back(tmp_path):
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = [signal.getsignal(signum) for signum in signals]
    train_toy(tmp_path, ToyConfig(steps=5))
    assert [signal.getsignal(signum) for signum in signals] == before
    assert signal.set_wakeup_fd(-1) == -1
