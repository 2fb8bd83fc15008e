"""What is printed, to wherever it may go: a terminal, a pipe whose reader has gone, a full disk."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from tsar_jax.errors import UserError


class Outlasting:
    """A text stream whose failure ends nothing: from the first one on, what is written is dropped.

    failure: the error of the first write that failed; None where all went well, or where it was
    a pipe whose reader has what it wanted.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except (OSError, ValueError) as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def isatty(self) -> bool:
        try:
            return bool(self._stream.isatty())
        except (OSError, ValueError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError | ValueError) -> None:
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            self.failure = error
        # What the stream still holds is written once more when the process ends: to nowhere.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        self._stream = _nowhere()


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def outlasting(stream: Any) -> Outlasting:
    """Return a stream that cannot fail: of None, which is Python's for a closed one, nowhere."""
    if isinstance(stream, Outlasting):
        return stream
    return Outlasting(_nowhere() if stream is None else stream)


def say(text: str) -> None:
    """Print a line to stderr, if anyone is there."""
    stream = outlasting(sys.stderr)
    stream.write(text + "\n")
    stream.flush()


def check_printed() -> None:
    """Raise UserError where what was printed is lost for another reason than a reader's leaving."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None:
        raise UserError(
            f"What was to be printed could not be written ({failure.strerror}): make room, or "
            "print it elsewhere."
        )


@contextlib.contextmanager
def outlasting_output() -> Iterator[None]:
    """Make stdout and stderr streams that cannot fail, to the end of the block.

    Descriptors 0 to 2 that are closed lead nowhere from now on: else the next files to be opened
    would get these numbers, and a library's messages with them.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(outlasting, before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
