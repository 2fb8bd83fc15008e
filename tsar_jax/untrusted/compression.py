"""Compressed streams from elsewhere, recognised by content and unpacked only as far as read."""

import bz2
import gzip
import io
import lzma
import zlib
from typing import BinaryIO, cast

MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0"}
"""First bytes of files by the kind of their compression."""
UNREAD = {"7z": b"7z\xbc\xaf\x27\x1c", "rar": b"Rar!", "zstd": b"\x28\xb5\x2f\xfd"}
"""First bytes of archives that are recognised but not read, by kind."""
HEAD = 8
"""Number of bytes that suffice to recognise a file."""
ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""Exceptions that reading a damaged stream raises."""
XZ_MEMORY = 1 << 27
"""Largest memory for unpacking xz in bytes; `xz -9` asks for half, a hostile header for 4 GB."""
PIECE = 1 << 16
"""Number of compressed bytes that are read at a time."""


def compression_of(head: bytes) -> str | None:
    """Return "gz", "bz2" or "xz" for a file that begins like one, else None."""
    return next((kind for kind, magic in MAGIC.items() if head.startswith(magic)), None)


def unread_kind(head: bytes) -> str | None:
    """Return the kind of an archive that is recognised but not read, else None."""
    return next((kind for kind, magic in UNREAD.items() if head.startswith(magic)), None)


def unpacked(file: BinaryIO) -> BinaryIO:
    """Return the content of a file as a stream, unpacked as it is read if it is compressed.

    Reading it raises one of `ERRORS` where it is damaged or cut short.
    """
    start = file.tell()
    kind = compression_of(file.read(HEAD))
    file.seek(start)
    if kind == "gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if kind == "bz2":
        return cast(BinaryIO, bz2.BZ2File(file))
    if kind == "xz":
        return io.BufferedReader(_Xz(file))
    return file


class _Xz(io.RawIOBase):
    """A reader like lzma.LZMAFile, with a bound on the memory that a header may ask for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = b""
        while not piece:
            data = b""
            if self._decoder.eof:
                if not (data := self._next_stream()):
                    return 0
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
            elif self._decoder.needs_input and not (data := self._file.read(PIECE)):
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            piece = self._decoder.decompress(data, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _next_stream(self) -> bytes:
        """Return the bytes that follow a stream's end and its padding of zeros; b"" at the end."""
        data = self._decoder.unused_data.lstrip(b"\0")
        while not data and (piece := self._file.read(PIECE)):
            data = piece.lstrip(b"\0")
        return data
