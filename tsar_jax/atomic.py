"""Files that are whole or not there at all, folders that leave nothing, and no links followed."""

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

    A reader or a crash sees the old file or the new. Nothing that lies in the folder is written
    through, a link for instance, for the new file's name is random and must be free.
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
            # A failed write does not know its file, and the temporary one's name means nothing.
            error.filename, error.filename2 = str(path), None
        raise


def make_missing(path: Path) -> list[Path]:
    """Make a folder, and return those that were not there, the outermost first."""
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    path.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that are empty, the innermost being the last."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def no_link(path: str, flags: int) -> int:
    """Open a file for `open(..., opener=no_link)`; a link at its place is an OSError."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def open_lock(path: Path) -> BinaryIO:
    """Open a file to be locked, made where there is none; what it holds stays as it is.

    Raises:
        UserError: there is something else of that name, or it cannot be made.
    """
    # Without O_NONBLOCK a pipe could be waited for.
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
