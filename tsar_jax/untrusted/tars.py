"""Tar archives from elsewhere, read without Python's tarfile.

tarfile trusts headers: extended headers of any length, sparse members of any size and any number of
members. Here each header is checked before it is followed, and only plain files and folders are
accepted. Nothing is extracted; a compressed archive is unpacked once, within bounds, to a temporary
file without a name.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tsar_jax.errors import UserError
from tsar_jax.untrusted.compression import ERRORS, HEAD, compression_of, unpacked
from tsar_jax.untrusted.names import is_litter, is_unsafe, plain_name
from tsar_jax.untrusted.zips import (
    FREE_TOTAL,
    LEADS_OUT,
    MAX_DIRECTORY,
    MAX_MEMBERS,
    MAX_RATIO,
    OCCURS_TWICE,
    refused,
    too_large,
)

BLOCK = 512
"""Size of a tar archive's blocks in bytes."""
PIECE = 1 << 20
"""Number of bytes that are unpacked at a time."""
MAX_HEADER = 1 << 16
"""Largest size of an extended header in bytes; it holds a path, perhaps dates and attributes."""
MAX_EXTENDED = 1 << 26
"""Largest size of all extended headers of an archive in bytes, RECORD_COST per line included."""
RECORD_COST = 32
"""Bytes counted for a record besides its own, for reading a short one takes as long as others."""
RECORD = re.compile(rb"(\d{1,6}) ([^=\n]{1,200})=", re.ASCII)
"""Beginning of a record of a pax header: its length in decimal digits, and its key."""
USED_KEYS = (b"path", b"size")
"""Keys of the records that are used; others may be many and long, and are dropped."""
SPARSE = b"GNU.sparse."
"""Prefix of the keys of records of sparse members."""
NOT_PLAIN = "it is neither a plain file nor a folder"


class TarMember(NamedTuple):
    """A file of an archive.

    name: its path, as it is in the archive. start: position of its bytes. size: their number.
    """

    name: str
    start: int
    size: int


class Damaged(Exception):
    """An archive that is cut short, or a file that is no archive."""


class OpenTar(NamedTuple):
    """A tar archive. file: its bytes, unpacked. members: its files, by plain path."""

    path: Path
    file: BinaryIO
    members: dict[str, TarMember]

    def read(self, name: str) -> bytes:
        """Return the bytes of a member."""
        member = self.members[name]
        self.file.seek(member.start)
        data = self.file.read(member.size)
        if len(data) != member.size:
            raise refused(self.path, member.name, f"it has {len(data)} of {member.size} bytes")
        return data


def is_tar_header(block: bytes) -> bool:
    """Return whether a block is the header of a tar archive's member, by its checksum."""
    try:
        return len(block) == BLOCK and sum(_unsigned(block)) == _number(block[148:156])
    except Damaged:
        return False


@contextmanager
def open_tar(path: Path, largest: int, total: int | None = None) -> Iterator[OpenTar]:
    """Open a tar archive, compressed by gzip, bzip2, xz or not at all, after checking its headers.

    Args:
        path: the archive; its compression is recognised by its content.
        largest: size of the largest member that is accepted, in bytes.
        total: bytes that it may unpack to; None: `MAX_RATIO` times its size, at least `FREE_TOTAL`.

    Raises:
        UserError: it is damaged, cut short or too large, or a member is neither a file nor a
            folder, occurs twice, or has a path that leads out of the archive.
    """
    try:
        with path.open("rb") as packed, tempfile.TemporaryFile() as spool:
            kind = compression_of(packed.read(HEAD))
            size = packed.seek(0, os.SEEK_END)
            packed.seek(0)
            if total is None:
                total = max(FREE_TOTAL, MAX_RATIO * size)
            tape = (
                _Tape(path, packed, size) if kind is None else _Spooled(path, packed, spool, total)
            )
            try:
                members = _Scan(path, tape, largest).run()
            except (Damaged, *ERRORS) as error:
                suffix = "tar" if kind is None else f"tar.{kind}"
                raise UserError(
                    f"{path} is not a complete {suffix} archive ({error}): delete it and get it "
                    "again"
                ) from error
            yield OpenTar(path, packed if kind is None else spool, members)
    except OSError as error:
        raise UserError(
            f"cannot read {path} or unpack it in {tempfile.gettempdir()} ({error.strerror}): make "
            "it readable and free space there"
        ) from error


class _Tape:
    """A sequential reader of an archive that is not compressed."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size

    def read(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) < count:
            raise Damaged("unexpected end of data")
        return data

    def skip(self, count: int) -> None:
        if self.file.tell() + count > self.size:
            raise Damaged("unexpected end of data")
        self.file.seek(count, os.SEEK_CUR)

    def tell(self) -> int:
        return self.file.tell()

    def finish(self) -> None:
        """Check the bytes after the archive's end; without compression none need a check."""


class _Spooled(_Tape):
    """A sequential reader of a compressed archive, which is unpacked to a temporary file."""

    def __init__(self, path: Path, packed: BinaryIO, spool: BinaryIO, total: int) -> None:
        super().__init__(path, spool, total)
        self.stream, self.left = unpacked(packed), total

    def read(self, count: int) -> bytes:
        data = self._take(count)
        if len(data) < count:
            raise Damaged("unexpected end of data")
        try:
            self.file.write(data)
        except OSError as error:
            raise UserError(
                f"cannot unpack {self.path} in {tempfile.gettempdir()} ({error.strerror}): free "
                "space there, or name another folder in TMPDIR"
            ) from error
        return data

    def skip(self, count: int) -> None:
        while count:
            count -= len(self.read(min(count, PIECE)))

    def finish(self) -> None:
        """Read to the end, so that the stream's checksum is compared."""
        while self._take(PIECE):
            pass

    def _take(self, count: int) -> bytes:
        # One byte beyond the bound is asked for, to see whether there is more.
        data = self.stream.read(min(count, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise UserError(
                f"{self.path} unpacks to more than {self.size} bytes: get the archive again"
            )
        return data


class _Scan:
    """A scan of an archive's headers, one after the other."""

    def __init__(self, path: Path, tape: _Tape, largest: int) -> None:
        self.path, self.tape, self.largest = path, tape, largest
        self.members: dict[str, TarMember] = {}
        self.names = 0
        self.extended = 0

    def run(self) -> dict[str, TarMember]:
        headers = 0
        extended: dict[str, str] = {}
        while (block := self.tape.read(BLOCK)).strip(b"\0"):
            headers += 1
            if headers > 2 * MAX_MEMBERS or len(self.members) > MAX_MEMBERS:
                raise UserError(
                    f"{self.path} has more than {MAX_MEMBERS} members: get the archive again"
                )
            if not is_tar_header(block):
                raise Damaged(f"header {headers} is damaged")
            kind = block[156:157]
            if kind in b"xgLK":
                extended |= self._extended(block, kind)
            else:
                self._member(block, kind, extended)
                extended = {}
        self.tape.finish()
        return dict(sorted(self.members.items()))

    def _extended(self, block: bytes, kind: bytes) -> dict[str, str]:
        """Return the fields that an extended header gives the next member, see `_pax_records`."""
        size = _number(block[124:136])
        if not 0 < size <= MAX_HEADER:
            name = block[:100].split(b"\0")[0].decode(errors="replace")
            raise refused(self.path, name, too_large(size, MAX_HEADER))
        data = self.tape.read(size)
        self.extended += size + RECORD_COST * data.count(b"\n")
        if self.extended > MAX_EXTENDED:
            raise UserError(
                f"{self.path} has too many extended headers or too long ones: pack its files anew "
                "without extended attributes, or get the archive again"
            )
        self.tape.skip(-size % BLOCK)
        if kind == b"L":
            return {"path": data.split(b"\0")[0].decode(errors="surrogateescape")}
        return _pax_records(data) if kind == b"x" else {}

    def _member(self, block: bytes, kind: bytes, extended: dict[str, str]) -> None:
        name = extended.get("path", _name(block))
        if is_unsafe(name):
            raise refused(self.path, name, LEADS_OUT)
        if kind not in b"0\0" + b"75" or "sparse" in extended:
            raise refused(self.path, name, NOT_PLAIN)
        size = _decimal(extended["size"]) if "size" in extended else _number(block[124:136])
        if not 0 <= size <= self.largest:
            raise refused(self.path, name, too_large(size, self.largest))
        start = self.tape.tell()
        self.tape.skip(size + -size % BLOCK)
        plain = plain_name(name)
        if kind == b"5" or name.endswith(("/", "\\")) or is_litter(plain) or not plain:
            return
        if plain in self.members:
            raise refused(self.path, name, OCCURS_TWICE)
        self.names += len(name)
        if self.names > MAX_DIRECTORY:
            raise UserError(f"the paths in {self.path} are too long: get the archive again")
        self.members[plain] = TarMember(name, start, size)


def _unsigned(block: bytes) -> bytes:
    """Return the bytes of a header that its checksum sums, with the checksum's field blank."""
    return block[:148] + b" " * 8 + block[156:]


def _number(field: bytes) -> int:
    """Return a number of a header: octal digits, or binary where the highest bit is set."""
    if field[0] & 0x80:
        negative = field[0] == 0xFF
        value = int.from_bytes(field[1:], "big")
        return value - (1 << 8 * (len(field) - 1)) if negative else value
    digits = field.split(b"\0")[0].strip()
    if not re.fullmatch(rb"[0-7]*", digits):
        raise Damaged("a number in a header is damaged")
    return int(digits or b"0", 8)


def _decimal(text: str) -> int:
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise Damaged("a number in an extended header is damaged")
    return int(text)


def _name(block: bytes) -> str:
    name = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return (prefix + b"/" * bool(prefix) + name).decode(errors="surrogateescape")


def _pax_records(data: bytes) -> dict[str, str]:
    """Return the records "path", "size" and "sparse" of a pax header, where it has them.

    Records are "30 path=a/b\\n" and so on, each beginning with its length. All are checked, but no
    others are kept, for consecutive headers would accumulate them.
    """
    records = {}
    position = 0
    while position < len(data):
        match = RECORD.match(data, position)
        end = position + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise Damaged("an extended header is damaged")
        key = match[2]
        if key in USED_KEYS:
            value = data[match.end() : end - 1].decode(errors="surrogateescape")
            records[key.decode()] = value
        elif key.startswith(SPARSE):
            records["sparse"] = ""
        position = end
    return records
