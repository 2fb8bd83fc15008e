"""What is printed to a reader that has gone, a full disk or nowhere ends nothing."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tsar_jax import cli
from tsar_jax.cli.status import status
from tsar_jax.output import outlasting
from tsar_jax.training.progress import LiveProgress, make_progress

ROOT = Path(cli.__file__).parents[2]
TSAR_JAX = [sys.executable, "-c", "from tsar_jax.cli import main; main()"]


class Broken(io.StringIO):
    """A stream that takes some writes and then no more."""

    def __init__(self, error, writes=0, terminal=False):
        super().__init__()
        self.error, self.writes, self.terminal = error, writes, terminal

    def write(self, text):
        if not self.writes:
            raise self.error
        self.writes -= 1
        return super().write(text)

    def isatty(self):
        return self.terminal


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [FULL, BrokenPipeError(), ValueError("closed file")])
@pytest.mark.parametrize("terminal", [False, True])
def test_progress_outlasts_its_stream(error, terminal):
    progress = make_progress(10, Broken(error, terminal=terminal))
    assert isinstance(progress, LiveProgress) == terminal
    progress.message("Hello.")
    progress.update(1, 1.0, {"loss": 1.0})
    progress.close()


def test_progress_without_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    progress = make_progress(10)
    progress.update(1, 1.0, {})
    progress.close()


def test_what_was_written_before_is_there_and_the_failure_is_known():
    inner = Broken(FULL, writes=1)
    stream = outlasting(inner)
    for line in ("one\n", "two\n", "three\n"):
        print(line, end="", file=stream)
    assert inner.getvalue() == "one\n"
    assert stream.failure is FULL
    assert outlasting(stream) is stream
    gone = outlasting(Broken(BrokenPipeError()))
    gone.write("one")
    assert gone.failure is None


def test_a_character_that_the_stream_lacks_is_escaped():
    inner = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream = outlasting(inner)
    print("85 ± 2", file=stream)
    print("more", file=stream)
    stream.flush()
    assert inner.buffer.getvalue() == b"85 \\xb1 2\nmore\n"


def run(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, unbuffered=False, script=TSAR_JAX):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    if unbuffered:
        environment["PYTHONUNBUFFERED"] = "1"
    command = [*script, *map(str, argv)]
    return subprocess.run(
        command, cwd=ROOT, stdout=stdout, stderr=stderr, text=True, env=environment, check=False
    )


@pytest.fixture
def unread():
    """The end to write to of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("argv", [["list"], ["--help"], ["published"]])
def test_commands_end_quietly_on_a_closed_pipe(unread, argv, unbuffered):
    done = run(*argv, stdout=unread, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_nobody_reads_keeps_its_exit_code(unread):
    assert run("status", "nowhere", stderr=unread).returncode == 2


full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


@full
def test_a_list_that_could_not_be_written_is_an_error():
    with Path("/dev/full").open("w") as disk:
        done = run("list", stdout=disk)
    assert done.returncode == 2
    assert done.stderr == (
        "error: What was to be printed could not be written (No space left on device): make room, "
        "or print it elsewhere.\n"
    )


TOY = Path(__file__).parent / "training" / "toy_training.py"


@full
def test_training_outlasts_all_output(tmp_path):
    with Path("/dev/full").open("w") as disk:
        argv = ["--out", tmp_path / "run", "--steps", "10"]
        done = run(*argv, stdout=disk, stderr=disk, script=[sys.executable, TOY])
    assert done.returncode == 0
    assert status(tmp_path / "run").count("step         10 of 10") == 1


def test_training_outlasts_closed_streams(tmp_path):
    """Whose descriptors no file of the run must get."""
    script = f"exec {sys.executable} {TOY} --out {tmp_path / 'run'} --steps 10 >&- 2>&-"
    done = run(script=["sh", "-c", script])
    assert done.returncode == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(line.startswith("{") for line in lines)
    assert status(tmp_path / "run").count("step         10 of 10") == 1
