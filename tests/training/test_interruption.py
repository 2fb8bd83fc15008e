"""Signals and kills, sent to a script that trains: what is left continues to the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from toy_training import ToyConfig, make_toy, same_bits, train_toy, without_times

from tsar_jax.training.checkpoints import load_checkpoint
from tsar_jax.training.interruption import caught_signals
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import checkpoint_steps

SCRIPT = Path(__file__).with_name("toy_training.py")


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def wait_for(condition, process, seconds=60.0) -> None:
    """Returns when the condition holds or the process has ended."""
    end = time.monotonic() + seconds
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
        process = start(*(["--resume", path] if resumable else ["--run", path, *flags]))
        process.stdout.readline()  # "begin": the imports are done
        known = newest(path)
        if kill % 2:
            # In the midst of a save that this process began, a few milliseconds in.
            wait_for(lambda: newest(path) != known, process)  # noqa: B023
            wait_for(lambda: saving(path), process)
            time.sleep(rng.uniform(0.0, 0.02))
        else:
            # At any moment; but where the machine is fast, before it can reach the end.
            moment = time.monotonic() + rng.uniform(0.0, 1.5)
            furthest = known + 25
            wait_for(lambda: time.monotonic() > moment or newest(path) >= furthest, process)  # noqa: B023
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        saves_cut_short += saving(path)
    assert saves_cut_short >= 2
    process = start("--resume", path)
    assert process.communicate()[0] == "begin\nend 400\n"
    assert process.returncode == 0
    state, step = load(path, config)
    assert step == 400
    assert same_bits(state, whole.state)
    assert without_times(read_rows(path)) == without_times(whole.metrics)
    assert not saving(path)


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
    config = ToyConfig(steps=200, chunk=4, eval_every=0, checkpoint_every=0, work=200_000)
    flags = ["--steps", 200, "--chunk", 4, "--eval-every", 0, "--checkpoint-every", 0]
    process = start("--run", path, *flags, "--work", config.work)
    wait_for(lambda: read_rows(path), process)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
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
    resumed = train_toy(path, config, resume=True)
    assert resumed.step == 200
    assert [row["step"] for row in resumed.metrics if row["split"] == "train"] == [
        *range(4, 201, 4)
    ]


def test_second_ctrl_c_stops_within_a_chunk(tmp_path):
    path = tmp_path / "run"
    process = start("--run", path, "--chunk", 7, "--work", 2_000_000_000)
    wait_for(lambda: checkpoint_steps(path / "checkpoints") == [0], process)
    time.sleep(1.5)  # into the first chunk, which would take minutes
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 3
    assert process.returncode == 130
    assert "stopped at once" in errors


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
