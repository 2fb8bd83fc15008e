"""Exit codes of commands, and their error messages on stderr."""

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from tsar_jax.compile_cache import keep_compiled_programs, silence_compiler
from tsar_jax.errors import DISK_ERRORS, FORBIDDEN, MAX_MESSAGE, ProcessLost, UserError, escaped
from tsar_jax.output import outlasting_output
from tsar_jax.precision import choose_full_precision
from tsar_jax.pretrained import resolve
from tsar_jax.terminal import prepare_terminal, use_utf8
from tsar_jax.training import run as run_folder
from tsar_jax.training.errors import TrainingDiverged, TrainingInterrupted

FAREWELL_SECONDS = 1
"""Time by which the first of several processes ends after the others, where they fail."""
SIGNAL_EXIT = 128
"""Exit code to which a signal's number is added, as shells do."""


def run_main(main: Callable[[], Any]) -> None:
    """Run a script's `main` as `exit_code` does, and exit with the code unless it is 0.

    In the script's arguments `pretrained:NAME` stands for a run that comes with the package,
    compiled programs are kept for the next process, and products are computed in full precision.
    """

    def run() -> None:
        silence_compiler()
        choose_full_precision()
        keep_compiled_programs()
        if sys.argv[1:2] != ["pretrained"]:  # which takes the name itself
            sys.argv[1:] = map(resolve, sys.argv[1:])
        main()

    try:
        code = exit_code(run, hint="; a training goes on with --resume")
    except Exception:
        if not _among_several():
            raise
        traceback.print_exc()
        code = 1
    if code and _among_several():
        # At once: JAX would wait for the other processes, of which one may be gone. The first one
        # lets them speak, for JAX aborts them where it is gone.
        sys.stderr.flush()
        if _is_first():
            time.sleep(FAREWELL_SECONDS)
        os._exit(code)
    if code:
        raise SystemExit(code)


def exit_code(main: Callable[[], int | None], stopped: str = "stopped", hint: str = "") -> int:
    """Run `main`, print its errors as sentences on stderr, and return the exit code.

    UserError and a disk that cannot be written are 2, TrainingDiverged 1, a signal 128 + its
    number, as Ctrl-C 130 and SIGTERM 143; other exceptions pass through. `main` goes on where its
    output cannot be written, because its reader has gone or the disk is full.

    Args:
        main: returns the exit code, or None for 0.
        stopped: text printed after Ctrl-C.
        hint: end of the sentence on a disk that cannot be written.
    """
    use_utf8()
    prepare_terminal()
    with outlasting_output(), warnings.catch_warnings():
        warnings.showwarning = _show_warning
        # A program that cannot be kept or read back is compiled, as without a cache.
        warnings.filterwarnings("ignore", message=".*persistent compilation cache")
        try:
            return main() or 0
        except UserError as error:
            return _report(f"error: {error}", 2)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            return _report(_disk_message(error, hint), 2)
        except (AssertionError, RuntimeError):
            message = _missing_platform()
            if not message:
                raise
            return _report(f"error: {message}", 2)
        except TrainingDiverged as error:
            return _report(f"error: {error}" if _is_first() else "", 1)
        except TrainingInterrupted as error:
            return _report(str(error) if _is_first() else "", SIGNAL_EXIT + error.signum)
        except ProcessLost as error:
            return _report(f"error: {error}", 1)
        except KeyboardInterrupt:
            return _report(stopped, SIGNAL_EXIT + signal.SIGINT)
        finally:
            run_folder.release_folders()


def _disk_message(error: OSError, hint: str) -> str:
    """Return the message on a file that cannot be used. hint: its end where a disk is full."""
    file = error.filename or "A file"
    if error.errno in FORBIDDEN:  # it may be that it was to be read, not written
        return (
            f"error: {file} cannot be used ({error.strerror}): change its permissions, or name "
            "another, and repeat the command."
        )
    return (
        f"error: {file} cannot be written ({error.strerror}): make room, or name another folder, "
        f"and repeat the command{hint}."
    )


def _among_several() -> bool:
    """Return whether this process trains together with others."""
    processes = sys.modules.get("tsar_jax.processes")  # not imported, for it imports JAX
    return processes is not None and processes.several()


def _is_first() -> bool:
    """Return whether this process speaks for all that train together with it."""
    return not _among_several() or sys.modules["tsar_jax.processes"].is_first()


def _missing_platform() -> str:
    """Return why JAX's platform is missing, or "" if it is not or JAX is not used."""
    if "jax" not in sys.modules:
        return ""
    from tsar_jax.devices import missing_platform

    return missing_platform()


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    text = "\n".join(escaped(line, MAX_MESSAGE) for line in str(message).split("\n"))
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _report(message: str, code: int) -> int:
    """Print a message, if there is one, to stderr and return the exit code that goes with it."""
    if message:
        print(escaped(message, MAX_MESSAGE), file=sys.stderr, flush=True)
    return code
