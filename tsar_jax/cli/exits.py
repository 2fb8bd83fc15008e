"""The end of a command: its errors in a sentence, its exit code."""

import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

from tsar_jax.compile_cache import keep_compiled_programs, silence_compiler
from tsar_jax.errors import (
    DISK_ERRORS,
    FORBIDDEN,
    MAX_MESSAGE,
    UserError,
    escaped,
)
from tsar_jax.output import outlasting_output
from tsar_jax.pretrained import resolve
from tsar_jax.terminal import prepare_terminal, use_utf8
from tsar_jax.training import run as run_folder
from tsar_jax.training.errors import TrainingDiverged, TrainingInterrupted


def run_main(main: Callable[[], Any]) -> None:
    """Runs a script's `main` as `exit_code` does, and exits with the code unless it is 0.

    In its arguments `pretrained:NAME` stands for a run that comes with the package, and compiled
    programs are kept for the next process.
    """

    def run() -> None:
        silence_compiler()
        keep_compiled_programs()
        if sys.argv[1:2] != ["pretrained"]:  # which takes the name itself
            sys.argv[1:] = map(resolve, sys.argv[1:])
        main()

    code = exit_code(run, hint="; a training goes on with --resume")
    if code:
        raise SystemExit(code)


def exit_code(main: Callable[[], int | None], stopped: str = "stopped", hint: str = "") -> int:
    """Runs `main` and returns its exit code; its errors are told in a sentence on stderr.

    UserError and a disk that cannot be written are 2, TrainingDiverged 1, a signal 128 + its
    number, as Ctrl-C 130 and SIGTERM 143; other exceptions pass through. Neither a reader of the
    output that goes away nor a full disk under it ends `main`.

    Args:
        main: what it returns is the exit code, or None for 0.
        stopped: what is printed after Ctrl-C.
        hint: ends the sentence on a disk that cannot be written.
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
            return _told(f"error: {error}", 2)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            if error.errno in FORBIDDEN:  # to be read, it may be
                return _told(
                    f"error: {error.filename or 'A file'} cannot be used ({error.strerror}): "
                    "change its permissions, or name another, and repeat the command.",
                    2,
                )
            return _told(
                f"error: {error.filename or 'A file'} cannot be written ({error.strerror}): make "
                f"room, or name another folder, and repeat the command{hint}.",
                2,
            )
        except (AssertionError, RuntimeError):
            trouble = _missing_platform()
            if not trouble:
                raise
            return _told(f"error: {trouble}", 2)
        except TrainingDiverged as error:
            return _told(f"error: {error}", 1)
        except TrainingInterrupted as error:
            return _told(str(error), 128 + error.signum)
        except KeyboardInterrupt:
            return _told(stopped, 128 + signal.SIGINT)
        finally:
            run_folder.release_folders()


def _missing_platform() -> str:
    """What is wrong with JAX's platform, if this process has asked for one."""
    if "jax" not in sys.modules:
        return ""
    from tsar_jax.devices import missing_platform

    return missing_platform()


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    text = "\n".join(escaped(line, MAX_MESSAGE) for line in str(message).split("\n"))
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _told(message: str, code: int) -> int:
    """Print a message to stderr and return the exit code that goes with it."""
    print(escaped(message, MAX_MESSAGE), file=sys.stderr, flush=True)
    return code
