"""IDX files, in which MNIST and EMNIST come: read without trust, compressed by gzip or not.

A file begins with a magic number of four bytes, 0x00000800 plus the number of dimensions where the
values are unsigned bytes. The size of each dimension follows, four bytes, then the values, the last
dimension fastest; all numbers are big-endian.
"""

import gzip
import io
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsar_jax.errors import UserError

UNSIGNED_BYTES = 0x00000800
GZIP_MAGIC = b"\x1f\x8b"
# EMNIST Balanced has 88 MB of training images.
LARGEST = 1 << 27


class File(NamedTuple):
    """The bytes of a file, and what an error calls it."""

    name: str
    data: bytes


def read_file(folder: Path, names: Sequence[str], obtain: str) -> File:
    """The first of these files that the folder has.

    obtain: where to get it, for the UserError that is raised if it has none of them or one that is
    too large or cannot be read.
    """
    for path in (folder / name for name in names):
        if path.is_file():
            try:
                if path.stat().st_size > LARGEST:
                    raise UserError(f"{path} holds more than {LARGEST} bytes: {obtain}")
                return File(str(path), path.read_bytes())
            except OSError as error:
                raise UserError(f"cannot read {path} ({error}): make it readable") from error
    raise UserError(f"{folder} has no file {' or '.join(names)}: {obtain}")


def read_idx(file: File, dimensions: int) -> np.ndarray:
    """The values of an IDX file of unsigned bytes, in that many dimensions.

    No more is unpacked than the header declares, and never more than 128 MiB. Raises UserError if
    the file is not whole, goes on after its values, or has another type or number of dimensions.
    """
    try:
        with _unpacked(file.data) as stream:
            sizes = _read_sizes(file.name, stream, dimensions)
            count = math.prod(sizes)
            values = stream.read(count)
            if len(values) < count:
                raise refused(file.name, f"it ends after {len(values)} of {count} values")
            # At the end gzip compares its checksum too.
            if stream.read(1):
                raise refused(file.name, f"it goes on after its {count} values")
    except (EOFError, OSError, zlib.error) as error:
        raise refused(file.name, str(error).rstrip(".")) from error
    return np.frombuffer(values, np.uint8).reshape(sizes)


def _unpacked(data: bytes) -> io.BytesIO | gzip.GzipFile:
    stream = io.BytesIO(data)
    return gzip.GzipFile(fileobj=stream) if data.startswith(GZIP_MAGIC) else stream


def _read_sizes(name: str, stream: io.BytesIO | gzip.GzipFile, dimensions: int) -> tuple[int, ...]:
    header = stream.read(4 * (1 + dimensions))
    if len(header) < 4 * (1 + dimensions):
        raise refused(name, f"it ends within its header, after {len(header)} bytes")
    magic, *sizes = (int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4))
    if magic != UNSIGNED_BYTES + dimensions:
        raise refused(
            name,
            f"its magic number is 0x{magic:08x}, not 0x{UNSIGNED_BYTES + dimensions:08x}, that of "
            f"unsigned bytes in {dimensions} dimension{'s' * (dimensions > 1)}",
        )
    if not 0 < math.prod(sizes) <= LARGEST:
        declared = " x ".join(map(str, sizes))
        raise refused(name, f"it declares {declared} values, not 1 to {LARGEST}")
    return tuple(sizes)


def refused(name: str, reason: str) -> UserError:
    """The error that a file deserves that is not the IDX file it should be."""
    return UserError(f"{name} is not the IDX file it should be ({reason}): get it again")
