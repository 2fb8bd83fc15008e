"""Atomic writes of files, removal of new folders, and files opened without following links."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tsar_jax.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an error.

    A reader or a crash sees the old file or the new. The new file's name is random and must be
    free, so that no link in the folder is written through.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # A failed write names no file, other calls the temporary one, which users do not know.
            error.filename, error.filename2 = str(path), None
        raise


def make_missing(path: Path) -> list[Path]:
    """Make a folder with its parents, and return those that were missing, the outermost first."""
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    path.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those folders that are empty; the list is in the order of `make_missing`."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def no_link(path: str, flags: int) -> int:
    """Open a file for `open(..., opener=no_link)`. Raises OSError where the path is a link."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def open_lock(path: Path) -> BinaryIO:
    """Open a file to be locked, which is made if it is missing and whose content is kept.

    Raises:
        UserError: the path is no regular file, or cannot be made.
    """
    # Without O_NONBLOCK opening a pipe could wait for ever.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    remedy = "delete it, for it only keeps processes apart"
    try:
        file = os.fdopen(no_link(str(path), flags), "r+b", buffering=0)
    except OSError as error:
        raise UserError(f"{path} cannot be locked ({error.strerror}): {remedy}.") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UserError(f"{path} is no regular file: {remedy}.")
    return file
