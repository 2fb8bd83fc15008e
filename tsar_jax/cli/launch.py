"""Start the processes of one training on this machine: tsar-jax launch --processes 2 run NAME ...

For trying out how a training goes with several processes. Each gets --coordinator, --processes and
--process; a cluster's own launcher starts them with --distributed instead.
"""

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from tsar_jax.errors import UserError
from tsar_jax.training.interruption import STOPPING

GRACE_SECONDS = 60
"""Time that the others have to stop after one process has ended early, until they are killed."""
POLL_SECONDS = 0.1


def main(argv: Sequence[str]) -> None:
    """Start the processes, wait for them, and exit as the first that failed."""
    arguments, command = _parser().parse_known_args(argv)
    if arguments.processes < 1:
        raise UserError(f"--processes must be at least 1, but is {arguments.processes}.")
    if command[:1] != ["run"] or len(command) < 2:
        raise UserError("Name the training: tsar-jax launch --processes 2 run NAME ...")
    code = launch(command, arguments.processes)
    if code:
        raise SystemExit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tsar-jax launch",
        usage="tsar-jax launch --processes N run NAME [its settings]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--processes", type=int, required=True, help="how many to start")
    return parser


def launch(command: Sequence[str], count: int) -> int:
    """Run `tsar-jax` with a command as `count` processes, and return their exit code.

    Returns:
        0 where all succeed; otherwise that of the process that failed first, 128 + N where it was
        ended by signal N.
    """
    place = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", str(count)]
    code = "from tsar_jax.cli import main; main()"
    started: list[subprocess.Popen[bytes]] = []
    with _passing_signals(started):
        try:
            for number in range(count):
                words = [*command, *place, "--process", str(number)]
                started.append(subprocess.Popen([sys.executable, "-c", code, *words]))
            return _wait(started)
        except BaseException:
            for process in started:
                process.kill()
            raise


def free_port() -> int:
    """Return the number of a port of this machine that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@contextlib.contextmanager
def _passing_signals(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass on to the processes what stops a training; a terminal's Ctrl-C reaches them itself."""

    def pass_on(signum: int, _: object) -> None:
        for process in started:
            if signum != signal.SIGINT:
                process.send_signal(signum)

    handlers = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGINT, *STOPPING)}
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _wait(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Return the exit code of the process that failed first, or 0 after all have ended."""
    failed: int | None = None
    deadline = float("inf")
    while any(process.poll() is None for process in started):
        for process in started:
            if failed is None and process.returncode:
                failed = process.returncode
                deadline = time.monotonic() + GRACE_SECONDS
        if time.monotonic() > deadline:
            for process in started:
                process.kill()
        time.sleep(POLL_SECONDS)
    for number, process in enumerate(started):
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            print(f"process {number} was ended by {name}", file=sys.stderr)
    codes = [process.returncode for process in started if process.returncode]
    code = failed if failed is not None else next(iter(codes), 0)
    return 128 - code if code < 0 else code
