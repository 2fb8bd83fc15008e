"""Files that a user names, opened only if they are files, and read only as far as is sane."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tsar_jax.errors import UserError

MAX_JSON = 1 << 26
"""Bytes of a JSON file that is read."""
MAX_DIGITS = 40
"""Of an integer in JSON; longer ones are too large for a float, and slow to read."""
MAX_LEVELS = 50
"""Lists and objects within each other in JSON; deeper ones could end whatever walks them."""


@contextmanager
def open_regular(path: Path, *, through_links: bool = False) -> Iterator[BinaryIO]:
    """Open a file to read its bytes.

    Args:
        path: the file.
        through_links: whether it may be a link to one.

    Raises:
        UserError: there is none, it cannot be read, or it is a folder, a pipe, a device or a link.
    """
    # Without O_NONBLOCK a pipe that nobody writes to would be waited for.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    if not through_links:
        flags |= getattr(os, "O_NOFOLLOW", 0)
        if os.path.islink(path):  # which, unlike Path.is_symlink, takes impossible names for absent
            raise UserError(f"{path} is a link: name the file itself.")
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise UserError(f"There is no file {path}: check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}): name another file.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is no regular file: name one.")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """Return what a JSON file holds, of at most `most` bytes.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is no regular file, larger, no JSON, or JSON as nobody writes it.
    """
    os.stat(path)
    try:
        with open_regular(path, through_links=True) as file:
            data = file.read(most + 1)
    except UserError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise ValueError("it is no regular file") from error
    if len(data) > most:
        raise ValueError(f"it is of more than {most:,} bytes")
    return parse_json(data.decode("utf-8"))


def parse_json(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it is no JSON, or its integers or its nesting are larger than any that we write.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    level = [value]
    for _ in range(MAX_LEVELS):
        level = [
            item
            for holder in level
            if isinstance(holder, list | dict)
            for item in (holder.values() if isinstance(holder, dict) else holder)
        ]
    if level:
        raise ValueError(TOO_DEEP)
    return value


TOO_DEEP = f"it is nested more than {MAX_LEVELS} levels deep"


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it has an integer of {len(digits)} digits")
    return int(digits)
