"""Files that a user names, opened only if they are files."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tsar_jax.errors import UserError


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read its bytes.

    Raises:
        UserError: there is none, it cannot be read, or it is a link, a folder, a pipe or a device.
    """
    # Without O_NONBLOCK a pipe that nobody writes to would be waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
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
