"""Compressed streams from elsewhere, told by their content, unpacked no further than asked."""

import bz2
import gzip
import io
import lzma
import zlib
from typing import BinaryIO, cast

MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0"}
"""How files begin, by the kind of their compression."""
UNREAD = {"7z": b"7z\xbc\xaf\x27\x1c", "rar": b"Rar!", "zstd": b"\x28\xb5\x2f\xfd"}
"""Kinds that are known by their beginning, but not read."""
HEAD = 8
"""Bytes that tell the kind of a file."""
ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What reading a damaged stream raises."""
XZ_MEMORY = 1 << 27
"""Bytes that unpacking xz may take; `xz -9` asks for half of them, a hostile header for 4 GB."""
PIECE = 1 << 16


def compression_of(head: bytes) -> str | None:
    """Return "gz", "bz2" or "xz" for a file that begins like one, else None."""
    return next((kind for kind, magic in MAGIC.items() if head.startswith(magic)), None)


def unread_kind(head: bytes) -> str | None:
    """Return the name of a kind of archive that is known and not read, else None."""
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
    """As lzma.LZMAFile, which has no bound on the memory that a header asks for."""

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
        """Return what follows a stream's end, but not the zeros there; b"": nothing does."""
        data = self._decoder.unused_data.lstrip(b"\0")
        while not data and (piece := self._file.read(PIECE)):
            data = piece.lstrip(b"\0")
        return data
