"""Files that a user names, opened only if they are regular files, and read up to a bound."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tsar_jax.errors import UserError

MAX_JSON = 1 << 26
"""Size of the largest JSON file that is read, in bytes."""
MAX_DIGITS = 40
"""Largest number of digits of an integer in JSON; more are beyond any float32, and slow to read."""
MAX_LEVELS = 50
"""Largest depth of lists and objects in JSON; deeper ones could exceed the recursion limit of code
that walks them.
"""
TOO_DEEP = f"it is nested more than {MAX_LEVELS} levels deep"


@contextmanager
def open_regular(path: Path, *, through_links: bool = False) -> Iterator[BinaryIO]:
    """Open a file to read its bytes.

    Args:
        path: the file.
        through_links: whether it may be a link to a file.

    Raises:
        UserError: it is missing, cannot be read, or is a folder, a pipe, a device or a link.
    """
    # Without O_NONBLOCK opening a pipe that nobody writes to would wait for ever.
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
    """Return the value in a JSON file of at most `most` bytes.

    Raises:
        FileNotFoundError: the file is missing.
        OSError: it cannot be read.
        ValueError: it is no regular file, too large, or refused by `parse_json`.
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
    """Return the value of a JSON text.

    Raises:
        ValueError: it is no JSON, or has an integer of more than `MAX_DIGITS` digits or more than
            `MAX_LEVELS` levels.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    level = [value]
    for _ in range(MAX_LEVELS):
        level = [
            item
            for container in level
            if isinstance(container, list | dict)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
    if level:
        raise ValueError(TOO_DEEP)
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it has an integer of {len(digits)} digits")
    return int(digits)
