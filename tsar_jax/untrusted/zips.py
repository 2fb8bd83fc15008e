"""Zip archives from elsewhere.

Nothing is extracted. Members are read into memory in bounded pieces, and an archive in which any
member has an unsafe path, an implausible size or an unusual compression is refused before the
first is read.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from tsar_jax.errors import UserError, escaped, shown
from tsar_jax.untrusted.names import is_litter, is_unsafe, plain_name

LEADS_OUT = "its path leads out of the archive"
OCCURS_TWICE = "it occurs twice"
MAX_MEMBERS = 150_000
"""Largest number of an archive's members; Tiny ImageNet has 120,609."""
MAX_DIRECTORY = 1 << 25
"""Largest size of an archive's list of members in bytes."""
END_RECORD = 22
"""Size in bytes of the record that ends an archive without a comment."""
WIDE_RECORD = 56
WIDE_LOCATOR = 20
"""Sizes in bytes of the two records before it in a large (zip64) archive."""
END_BYTES = 1 << 17
"""Number of bytes at the end of an archive that hold these records and a comment, of up to 65,535
bytes.
"""
MEMBER = b"PK\1\2"
"""First bytes of every entry in the list of members."""
OTHER_METHODS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz", 98: "PPMd"}
"""Compressions of members that are not read: some unpack a gigabyte before they can be stopped."""
PIECE = 1 << 20
"""Number of bytes that are unpacked at a time."""
FREE_TOTAL = 1 << 28
MAX_RATIO = 50
"""Largest size of an archive's unpacked members: MAX_RATIO times its bytes, at least FREE_TOTAL.

Images and text compress less than this, a bomb by more than a thousand times.
"""


@contextmanager
def open_zip(path: Path, file: BinaryIO | None = None) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive to read.

    Args:
        path: the archive.
        file: the archive, where it has been opened already.

    Raises:
        UserError: it is no zip archive, or cut short.
    """
    try:
        source = nullcontext(file) if file is not None else path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): make it readable") from error
    with source as opened:
        try:
            _check_directory(opened)
            archive = zipfile.ZipFile(opened)
        except UserError:
            raise
        except (
            zipfile.BadZipFile,
            OSError,
            ValueError,
            NotImplementedError,
            struct.error,
        ) as error:
            raise UserError(
                f"{path} is not a complete zip archive ({error}): delete it and get it again"
            ) from error
        archive.filename = str(path)
        with archive:
            yield archive


def _check_directory(file: BinaryIO) -> None:
    """Raise where the list of members, which zipfile reads as a whole, could fill the memory."""
    file.seek(0, os.SEEK_END)
    tail_start = max(file.tell() - END_BYTES, 0)
    file.seek(tail_start)
    tail = file.read()
    # zipfile looks for the record at the very end first, and then before a comment.
    bare = tail[-END_RECORD:]
    plain = bare[:4] == b"PK\5\6" and bare[-2:] == b"\0\0"
    where = len(tail) - END_RECORD if plain else tail.rfind(b"PK\5\6")
    if where < 0:
        raise zipfile.BadZipFile("its end is missing")
    disks, size = struct.unpack_from("<4xI4xI", tail, where)
    lists = {(tail_start + where - size, size)}
    locator = where - WIDE_LOCATOR
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        first, place, count = struct.unpack_from("<IQI", tail, locator + 4)
        disks |= first | count >> 1
        # Both positions of the zip64 record are checked: the locator's, and the one directly before
        # the locator, where zipfile looks.
        before = tail_start + locator - WIDE_RECORD
        lists = {(before - size % 0xFFFFFFFF, size % 0xFFFFFFFF)}
        for at in {place, before}:
            file.seek(max(at, 0))
            wide = struct.unpack_from("<Q", file.read(WIDE_RECORD), 40)[0]
            lists.add((at - wide, wide))
    if disks:
        raise zipfile.BadZipFile("it is one of several parts")
    for start, size in lists:
        _check_list(file, start, size)


def _check_list(file: BinaryIO, start: int, size: int) -> None:
    if size > MAX_DIRECTORY:
        raise zipfile.BadZipFile(f"the list of its members takes {size} bytes")
    file.seek(max(start, 0))
    members = file.read(size).count(MEMBER)
    if members > MAX_MEMBERS:
        raise zipfile.BadZipFile(f"it has {members} members, more than {MAX_MEMBERS}")


def zip_members(archive: zipfile.ZipFile, largest: int) -> list[zipfile.ZipInfo]:
    """Return the files of an archive, sorted by path, without folders and files that systems add.

    Args:
        archive: the archive.
        largest: size of the largest file that is accepted, in bytes.

    Raises:
        UserError: a path is empty, leads out of the archive or occurs twice, a file is too large or
            of a compression other than deflate, or all together are implausibly large.
    """
    members = []
    paths = set()
    for member in archive.infolist():
        name = member.filename
        plain = plain_name(name)
        if is_unsafe(name):
            raise refused(archive.filename, name, LEADS_OUT)
        if name.endswith(("/", "\\")) or is_litter(plain):
            continue
        if not plain:
            raise refused(archive.filename, name, "it has no name")
        if plain in paths:
            raise refused(archive.filename, name, OCCURS_TWICE)
        if member.file_size > largest:
            raise refused(archive.filename, name, too_large(member.file_size, largest))
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            kind = OTHER_METHODS.get(member.compress_type, f"method {member.compress_type}")
            raise refused(archive.filename, name, f"it is packed by {kind}, not by deflate")
        paths.add(plain)
        members.append(member)
    check_total(archive, sum(member.file_size for member in members))
    return sorted(members, key=lambda member: member.filename)


def check_total(archive: zipfile.ZipFile, total: int) -> None:
    """Raise UserError where an archive's members unpack to implausibly many bytes, see `MAX_RATIO`.

    total: their unpacked size in bytes.
    """
    assert archive.fp is not None
    most = max(FREE_TOTAL, MAX_RATIO * archive.fp.seek(0, os.SEEK_END))
    if total > most:
        raise UserError(
            f"{archive.filename} cannot be used, its members unpack to {total} bytes, more than "
            f"{most}: get the archive again"
        )


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return the bytes of a member, as many as the archive declares, with a verified checksum."""
    data = io.BytesIO()
    try:
        with archive.open(member) as file:
            # In pieces, for zipfile would unpack everything before it cuts the result.
            while remaining := member.file_size - data.tell():
                if not (piece := file.read(min(PIECE, remaining))):
                    raise EOFError(f"it has {data.tell()} of {member.file_size} bytes")
                data.write(piece)
            file.read(1)  # zipfile compares the checksum of an empty member only on a read
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
    return data.getvalue()


def too_large(size: int, largest: int) -> str:
    """Return the reason to refuse a member of `size` bytes."""
    return f"it holds {size} bytes, not {largest}"


def refused(path: str | os.PathLike[str] | None, name: str, reason: str) -> UserError:
    """Return the error for an archive with a member that is refused for a reason."""
    return UserError(
        f"{os.fspath(path or 'archive')} cannot be used, its member {shown(name)} is not as "
        f"expected ({escaped(reason, 600)}): get the archive again"
    )
