"""Several processes that train one run: what they reach, and what one leaves when another is lost.

They talk over the loopback interface; each has one device, a CPU.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGABRT, SIGKILL, SIGSTOP, SIGTERM

import jax
import pytest
from compilers import compiled_quickly
from toy_training import ToyConfig, make_toy, same_bits, train_toy, without_times

from tsar_jax import processes
from tsar_jax.cli.launch import free_port
from tsar_jax.training.checkpoints import load_checkpoint, load_seeds
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import checkpoint_steps
from tsar_jax.training.seeds import SeedsState

SCRIPT = Path(__file__).with_name("toy_training.py")
PATIENCE = 600.0
"""Seconds for what takes a few, so that a slow and busy machine is no failure."""
LONG = ("--steps", 100_000, "--chunk", 5)
"""A run that is stopped long before its end."""


def start(
    number,
    count,
    port,
    *arguments,
    code=f"import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')",
):
    place = ("--coordinator", f"127.0.0.1:{port}", "--processes", count, "--process", number)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, (*arguments, *place))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def start_all(count, *arguments):
    port = free_port()
    return [start(number, count, port, *arguments) for number in range(count)]


def ended(started):
    """Exit code, output and errors of each process."""
    found = [process.communicate(timeout=PATIENCE) for process in started]
    return [(p.returncode, *texts) for p, texts in zip(started, found, strict=True)]


def sentences(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("error:")]


def wait_for_save(path, step, started) -> None:
    end = time.monotonic() + PATIENCE
    while max(checkpoint_steps(path / "checkpoints"), default=0) < step:
        assert all(process.poll() is None for process in started), ended(started)
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("seeds", [1, 3])
def test_two_processes_end_at_the_bits_of_one(tmp_path, seeds):
    config = ToyConfig(steps=20, seeds=seeds)
    whole = train_toy(tmp_path / "whole", config)
    path = tmp_path / "run"
    first, second = ended(start_all(2, "--steps", 20, "--seeds", seeds, "--out", path))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert first[1].endswith("end 20\n")
    assert second[1:] == ("", "")
    like = jax.eval_shape(make_toy(config).init, jax.random.key(0))
    if seeds == 1:
        assert same_bits(load_checkpoint(path, like=like)[0], whole.state)
    else:
        states, lost, _ = load_seeds(path, like=like)
        assert same_bits(SeedsState(states, whole.state.lost), whole.state)
        assert lost == []
    assert without_times(read_rows(path)) == without_times(whole.metrics)


@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_is_killed_the_other_stops_with_a_sentence(tmp_path, victim):
    path = tmp_path / "run"
    started = start_all(2, *LONG, "--out", path)
    wait_for_save(path, 5, started)
    started[victim].kill()
    began = time.monotonic()
    codes = ended(started)
    assert time.monotonic() - began < 60
    code, _, errors = codes[1 - victim]
    assert code == 1
    (sentence,) = sentences(errors)
    assert "Another process of this training has ended" in sentence
    assert f"--resume {path}" in sentence


def test_where_one_hangs_the_other_stops_with_a_sentence(tmp_path):
    path = tmp_path / "run"
    first, second = start_all(2, *LONG, "--out", path)
    wait_for_save(path, 5, [first, second])
    second.send_signal(SIGSTOP)
    ((code, _, errors),) = ended([first])
    second.kill()
    second.communicate()
    assert code == 1
    (sentence,) = sentences(errors)
    assert "Another process of this training has ended or cannot be reached" in sentence


def test_a_signal_to_one_stops_and_saves_all(tmp_path):
    path = tmp_path / "run"
    config = ToyConfig(steps=1000, chunk=5, eval_every=100, checkpoint_every=50)
    sizes = ("--steps", 1000, "--chunk", 5, "--eval-every", 100, "--checkpoint-every", 50)
    started = start_all(2, *sizes, "--out", path)
    wait_for_save(path, 50, started)
    started[1].send_signal(SIGTERM)
    first, second = ended(started)
    assert (first[0], second[0]) == (143, 143), first[2] + second[2]
    assert "saved; continue with" in first[2]
    assert 0 < checkpoint_steps(path / "checkpoints")[-1] < 1000
    # It goes on in two processes, or in one, to the bits of a run that never had two.
    whole = train_toy(tmp_path / "whole", config)
    shutil.copytree(path, tmp_path / "copy")
    assert same_bits(train_toy(tmp_path / "copy", config, resume=True).state, whole.state)
    for code, _, errors in ended(start_all(2, "--resume", path)):
        assert (code, "warning" in errors) == (0, False), errors
    like = jax.eval_shape(make_toy(config).init, jax.random.key(0))
    assert same_bits(load_checkpoint(path, like=like)[0], whole.state)
    assert without_times(read_rows(path)) == without_times(whole.metrics)


def test_launch_starts_all_and_ends_as_they_do(tmp_path):
    code = "from tsar_jax.cli import main; main()"
    words = ("run", "hebbian_evolve", "--preset", "smoke", "--environment", "pendulum")
    sizes = ("--steps", 2, "--limit", 5, "--evolution.population", 6, "--evaluations", 3)

    def launch(*arguments):
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"} | compiled_quickly(tmp_path),
        )

    several, one = tmp_path / "several", tmp_path / "one"
    done = launch("launch", "--processes", 2, *words, *sizes, "--out", several)
    assert done.returncode == 0, done.stderr
    assert launch(*words, *sizes, "--out", one).returncode == 0
    assert without_times(read_rows(several)) == without_times(read_rows(one))
    done = launch("launch", "--processes", 2, *words, *sizes, "--out", several)
    assert done.returncode in (1, 2)
    assert f"{several} already holds a run" in done.stderr
    done = launch("launch", "--processes", 2, "list")
    assert done.returncode == 2
    assert "Name the training" in done.stderr


def test_other_settings_are_named(tmp_path):
    port = free_port()
    path = tmp_path / "run"
    started = [start(i, 2, port, "--steps", 20 + i, "--out", path) for i in range(2)]
    for code, _, errors in ended(started):
        assert code != 0
        assert "Processes 1 have other settings than process 0" in errors or "ended" in errors
    assert not (path / "config.json").exists()


def test_a_process_that_never_comes_is_missed(tmp_path):
    code = (
        "from tsar_jax import processes; processes.CONNECT_SECONDS = 2; import runpy; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    for number in range(2):
        process = start(number, 2, free_port(), "--out", tmp_path / "run", code=code)
        ((status, _, errors),) = ended([process])
        assert status == 2, errors
        (sentence,) = sentences(errors)
        assert "did not find each other" in sentence


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (("--coordinator", "here:1"), "give all three"),
        (("--coordinator", "here", "--processes", "2", "--process", "0"), "must be HOST:PORT"),
        (("--coordinator", "here:1", "--processes", "2", "--process", "2"), "from 0 to"),
        (("--distributed", "--process", "0"), "leave out --coordinator"),
    ],
)
def test_a_place_that_cannot_be_is_named(place, sentence, tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *place], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not list(tmp_path.iterdir())


def test_alone_there_is_nothing_to_agree_on():
    assert not processes.several()
    assert processes.is_first()
    assert processes.any_signal(None) is None
    assert processes.any_signal(15) == 15
    assert processes.text_of_first("here") == "here"
    assert processes.first_then_all(lambda first: first) is True


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_killed_at_twenty_moments_all_end_at_the_same_bits(tmp_path, count):
    config = ToyConfig(steps=400, checkpoint_every=5, eval_every=50)
    whole = train_toy(tmp_path / "whole", config)
    path = tmp_path / "run"
    rng = random.Random(count)
    flags = ("--steps", 400, "--eval-every", 50)
    for _ in range(20):
        resumable = (path / "config.json").exists()
        started = start_all(count, *(("--resume", path) if resumable else ("--out", path, *flags)))
        time.sleep(rng.uniform(0, 12))
        rng.choice(started).send_signal(rng.choice([SIGKILL, SIGTERM]))
        for code, _, errors in ended(started):
            # SIGABRT: JAX ends a process by itself where the first one is gone.
            assert code in (0, 1, 2, 143, *(-s for s in (SIGKILL, SIGTERM, SIGABRT))), errors
            assert "Traceback" not in errors
        if read_rows(path) and read_rows(path)[-1]["step"] == 400:
            break
    for code, _, errors in ended(start_all(count, "--resume", path)):
        assert code == 0, errors
    like = jax.eval_shape(make_toy(config).init, jax.random.key(0))
    assert same_bits(load_checkpoint(path, like=like)[0], whole.state)
    assert without_times(read_rows(path)) == without_times(whole.metrics)
