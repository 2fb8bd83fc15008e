"""IDX files, the format of MNIST and EMNIST, compressed or not.

A file begins with a magic number of four bytes, 0x00000800 plus the number of dimensions where the
values are unsigned bytes. The size of each dimension follows, four bytes, then the values, the last
dimension fastest; all numbers are big-endian.
"""

import io
import math
import re
from typing import BinaryIO, NamedTuple

import numpy as np

from tsar_jax.errors import UserError
from tsar_jax.untrusted.compression import ERRORS, unpacked

from .sources import Source

UNSIGNED_BYTES = 0x00000800
ENDING = re.compile(r"\.(gz|bz2|xz|idx)$")
# EMNIST Balanced has 88 MB of training images.
LARGEST = 1 << 27


class File(NamedTuple):
    """The bytes of a file, and its name in error messages."""

    name: str
    data: bytes


def usual_name(path: str) -> str:
    """Return the official name of the file at a path, such as "train-images-idx3-ubyte".

    Some copies write ".idx3" for "-idx3", and some are packed under a name that does not say so.
    """
    name = path.rsplit("/", 1)[-1].lower()
    while ENDING.search(name):
        name = ENDING.sub("", name)
    return re.sub(r"[._]idx(?=\d-ubyte$)", "-idx", name)


def find_files(source: Source, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the paths at which the source has each file, by official name, the best first.

    Paths nearest to the top are best, and of two side by side the one that is still packed.
    """
    found: dict[str, list[str]] = {name: [] for name in names}
    for path in source.paths:
        if (name := usual_name(path)) in found:
            found[name].append(path)
    for paths in found.values():
        paths.sort(key=lambda path: (path.count("/"), not ENDING.search(path.lower()), path))
    return found


def read_file(source: Source, name: str, obtain: str) -> File:
    """Return the file of an official name, wherever it lies in the source.

    obtain: advice where to get it, for the UserError that is raised if the source has none or one
    that is too large or cannot be read.
    """
    paths = find_files(source, (name,))[name]
    if not paths:
        packed = "" if name.endswith(".txt") else ".gz"
        raise UserError(
            f"{source.where} has no file {name}{packed}, but {source.found()}: {obtain}"
        )
    return File(f"{paths[0]} of {source.where}", source.read(paths[0], LARGEST))


def read_idx(file: File, dimensions: int) -> np.ndarray:
    """Return the values of an IDX file of unsigned bytes as an array of `dimensions` axes.

    No more is unpacked than the header declares, and never more than 128 MiB. Raises UserError if
    the file is not whole, goes on after its values, or has another type or number of dimensions.
    """
    try:
        with unpacked(io.BytesIO(file.data)) as stream:
            sizes = _read_sizes(file.name, stream, dimensions)
            count = math.prod(sizes)
            values = stream.read(count)
            if len(values) < count:
                raise refused(file.name, f"it ends after {len(values)} of {count} values")
            # At the end a compressed stream's checksum is compared too.
            if stream.read(1):
                raise refused(file.name, f"it goes on after its {count} values")
    except ERRORS as error:
        raise refused(file.name, str(error).rstrip(".")) from error
    return np.frombuffer(values, np.uint8).reshape(sizes)


def _read_sizes(name: str, stream: BinaryIO, dimensions: int) -> tuple[int, ...]:
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
    """Return the error for a file that is not the IDX file it should be."""
    return UserError(f"{name} is not the IDX file it should be ({reason}): get it again")
