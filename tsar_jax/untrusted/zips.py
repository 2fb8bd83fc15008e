"""Zip archives from elsewhere: read without trust.

Nothing is ever extracted. Members are read into memory, and an archive in which any member has an
unsafe path or an implausible size is refused before the first is read.
"""

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tsar_jax.errors import UserError, escaped, shown

LEADS_OUT = "its path leads out of the archive"
OCCURS_TWICE = "it occurs twice"
MAX_DIRECTORY = 1 << 25
"""Bytes of an archive's list of members at most: some 300,000 of them."""
END_RECORD = 22
"""Bytes of the record that ends an archive without a comment."""
END_BYTES = 1 << 17
"""The end of an archive, a comment of 65,535 bytes included, lies in so many bytes."""


def is_unsafe(name: str) -> bool:
    """Whether a member's path is absolute or climbs out of the folder it is unpacked in."""
    path = name.replace("\\", "/")
    return path.startswith("/") or ".." in path.split("/") or bool(re.match(r"[A-Za-z]:", path))


@contextmanager
def open_zip(path: Path, file: BinaryIO | None = None) -> Iterator[zipfile.ZipFile]:
    """A zip archive to read, or UserError if the file is not one or was cut short.

    file: the archive, where it has been opened already.
    """
    try:
        if file is not None:
            _check_directory(file)
        archive = zipfile.ZipFile(file or path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise UserError(
            f"{path} is not a complete zip archive ({error}): delete it and get it again"
        ) from error
    archive.filename = str(path)
    with archive:
        yield archive


def _check_directory(file: BinaryIO) -> None:
    """Refuse a list of members that zipfile, which reads all of it, would fill the memory with."""
    file.seek(0, os.SEEK_END)
    tail_start = max(file.tell() - END_BYTES, 0)
    file.seek(tail_start)
    tail = file.read()
    # As zipfile looks for it: at the very end, and only then before a comment.
    bare = tail[-END_RECORD:]
    plain = bare[:4] == b"PK\5\6" and bare[-2:] == b"\0\0"
    where = len(tail) - END_RECORD if plain else tail.rfind(b"PK\5\6")
    if where < 0:
        raise zipfile.BadZipFile("its end is missing")
    disks, size = struct.unpack_from("<4xI4xI", tail, where)
    if where >= 20 and tail[where - 20 : where - 16] == b"PK\6\7":
        first, place, count = struct.unpack_from("<IQI", tail, where - 16)
        disks |= first | count >> 1
        file.seek(place)
        size = max(struct.unpack_from("<Q", file.read(56), 40)[0], size % 0xFFFFFFFF)
    if disks:
        raise zipfile.BadZipFile("it is one of several parts")
    if size > MAX_DIRECTORY:
        raise zipfile.BadZipFile(f"the list of its members takes {size} bytes")


def zip_members(archive: zipfile.ZipFile, largest: int) -> list[zipfile.ZipInfo]:
    """The files of an archive, sorted by path; folders and what macOS adds to zips left out.

    Raises UserError if a path is empty, leads out of the archive, occurs twice, or belongs to a
    file of more than `largest` bytes.
    """
    members = []
    seen = set()
    for member in archive.infolist():
        name = member.filename
        if not name:
            raise refused(archive.filename, name, "it has no name")
        if is_unsafe(name):
            raise refused(archive.filename, name, LEADS_OUT)
        if name in seen:
            raise refused(archive.filename, name, OCCURS_TWICE)
        if member.file_size > largest:
            raise refused(archive.filename, name, too_large(member.file_size, largest))
        seen.add(name)
        if not member.is_dir() and not _is_mac_litter(name):
            members.append(member)
    return sorted(members, key=lambda member: member.filename)


def _is_mac_litter(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1] == ".DS_Store"


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, at most as many as the archive declares, their checksum verified."""
    try:
        return archive.read(member)
    except (
        zipfile.BadZipFile,  # a wrong checksum or header
        zlib.error,
        EOFError,
        OSError,
        NotImplementedError,  # a compression that Python lacks
        RuntimeError,  # encrypted
        ValueError,  # a name that is no text
        struct.error,
    ) as error:
        raise refused(archive.filename, member.filename, str(error) or "it is damaged") from error


def too_large(size: int, largest: int) -> str:
    """Return the reason to refuse a member of `size` bytes."""
    return f"it holds {size} bytes, not {largest}"


def refused(path: str | os.PathLike[str] | None, name: str, reason: str) -> UserError:
    """The error that an archive deserves of which one member is not as it should be."""
    return UserError(
        f"{os.fspath(path or 'archive')} cannot be used, its member {shown(name)} is not as "
        f"expected ({escaped(reason, 600)}): get the archive again"
    )
