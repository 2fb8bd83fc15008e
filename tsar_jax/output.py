"""Output streams that do not fail: to a terminal, a pipe whose reader has gone or a full disk."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from tsar_jax.errors import UserError


class Outlasting:
    """A text stream that drops what is written after its first failure, in place of raising.

    failure: the error of the write that failed; None where none did, or where a pipe's reader has
        gone.
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
        # When the process ends, Python writes what the stream still buffers: to nowhere then.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        self._stream = _nowhere()


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def outlasting(stream: Any) -> Outlasting:
    """Return a stream that cannot fail. stream: None, Python's closed stdout, leads nowhere."""
    if isinstance(stream, Outlasting):
        return stream
    return Outlasting(_nowhere() if stream is None else stream)


def say(text: str) -> None:
    """Print a line to stderr; nothing happens where that fails."""
    stream = outlasting(sys.stderr)
    stream.write(text + "\n")
    stream.flush()


def check_printed() -> None:
    """Raise UserError where printed text is lost for another reason than a reader that has gone."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None:
        raise UserError(
            f"What was to be printed could not be written ({failure.strerror}): make room, or "
            "print it elsewhere."
        )


@contextlib.contextmanager
def outlasting_output() -> Iterator[None]:
    """Replace stdout and stderr by streams that cannot fail, to the end of the block.

    Descriptors 0 to 2 that are closed are opened to nowhere: else the next files to be opened would
    get these numbers, and libraries' messages would be written into them.
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
