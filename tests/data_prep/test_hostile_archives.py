"""Small archives that would fill the memory or never end: a sentence, soon, in little memory.

Each is read in a process of its own, whose greatest memory above that before is measured. These are
forked from one that has imported what they need.
"""

import bz2
import gzip
import io
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
MEGABYTES = 400
SECONDS = 30
READ = """
import json, os, resource, sys, time
from pathlib import Path
import numpy
from data_prep import array_pickles, images, mini_imagenet, omniglot, own_images, tiny_imagenet
from data_prep.cifar10 import read_archive
from data_prep.sources import open_source
from tsar_jax.errors import UserError

def pictures(path):
    with open_source(path, 1 << 25) as source:
        for name in source.paths:
            with images.open_image(source.read(name, 1 << 25), ("PNG",), name, "again") as image:
                images.resize_colour(image, 28)

def own(path):
    with open_source(path, own_images.LARGEST_FILE) as source:
        for name in source.paths:
            own_images.read_image(own_images.File(name, source, name), 28)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def measure(path, reader):
    before, start = peak(), time.process_time()
    try:
        reader(path)
        message = ""
    except UserError as error:
        message = str(error)
    print(json.dumps([message, peak() - before, time.process_time() - start]), flush=True)

for line in sys.stdin:
    name, path = json.loads(line)
    child = os.fork()
    if not child:
        try:
            measure(Path(path), {"cifar10": read_archive, "pictures": pictures, "own": own}[name])
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        sys.exit("the reader failed")
"""


@pytest.fixture(scope="module")
def reading() -> Iterator[subprocess.Popen[str]]:
    """A process that reads each archive it is told, as JSON of a reader's name and a path."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", READ]
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def zipped(method: int, data: bytes, claims: int) -> bytes:
    """A zip of one member that claims to be smaller than it is."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("liar", data)
    size = struct.pack("<I", len(data))
    return stream.getvalue().replace(size, struct.pack("<I", claims))


def deflated(megabytes: int, claims: int) -> bytes:
    """A zip of one deflated member of zeros that claims to be smaller than it is."""
    compressed = zlib.compressobj(wbits=-15)
    # Flushed in full, each megabyte is compressed to the same bytes: no need to do it again.
    block = compressed.compress(ZEROS) + compressed.flush(zlib.Z_FULL_FLUSH)
    data, checksum = megabytes * block + compressed.flush(), 0xBAD
    first = struct.pack("<5H", 20, 0, zipfile.ZIP_DEFLATED, 0, 0x21)
    first += struct.pack("<3I2H", checksum, len(data), claims, len(b"liar"), 0)
    local = b"PK\3\4" + first + b"liar" + data
    listed = b"PK\1\2" + struct.pack("<H", 20) + first + bytes(14) + b"liar"
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(listed), len(local), 0)
    return local + listed + end


def header(name: str, kind: bytes = b"0", size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512) + bytes(1024)


def png(width: int, height: int, bits: int, colour: int = 0) -> bytes:
    """A PNG of zeros, grey or, of colour 6, RGBA, its rows compressed piece by piece and soon."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    rows = zlib.compressobj(1)
    row = bytes(1 + width * bits // 8 * {0: 1, 6: 4}[colour])
    data = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def drawn(image_format: str, size: tuple[int, int], mode: str, **options: object) -> bytes:
    """An image of one colour."""
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, image_format, **options)
    return stream.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def many_in_zip(count: int) -> bytes:
    """A list of so many members of nothing, without the members."""
    local = b"PK\3\4" + bytes(26)
    entry = b"PK\1\2" + bytes(24) + struct.pack("<H", 6) + bytes(16)
    entries = b"".join(entry + b"%06d" % number for number in range(count))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entries), len(local), 0)
    return local + entries + end


def many_in_tar(count: int) -> bytes:
    """So many members of nothing, without the end."""
    first = header("000000")
    rest, checksum = first[156:], sum(first[:148] + b" " * 8 + first[156:]) - 6 * ord("0")
    names = (b"%06d" % number for number in range(count))
    return b"".join(
        name + first[6:148] + b"%06o\0 " % (checksum + sum(name)) + rest for name in names
    )


EMPTY_DICTS = b"\x80\x02" + b"}" * 4_000_000 + b"."
META = pickle.dumps({b"label_names": [b"a%d" % n for n in range(10)]}, 2)
BATCHES = "cifar-10-batches-py/"
ZEROS = bytes(1 << 20)

HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "bzip2": ("pictures", lambda: zipped(zipfile.ZIP_BZIP2, 20 * ZEROS, 100), "bzip2, not by def"),
    "LZMA": ("pictures", lambda: zipped(zipfile.ZIP_LZMA, 20 * ZEROS, 100), "LZMA, not by defl"),
    "deflate": ("pictures", lambda: deflated(600, 100), "CRC"),
    "many in a zip": ("pictures", lambda: many_in_zip(200_000), "200000 members, more than 150000"),
    "many in a tar": (
        "pictures",
        lambda: gzip.compress(many_in_tar(151_000), 1),
        "more than 150000 members",
    ),
    "pax digits": (
        "cifar10",
        lambda: gzip.compress(header("a", b"x", 500 << 20)) + 500 * gzip.compress(b"1" * (1 << 20)),
        "holds 524288000 bytes, not 65536",
    ),
    "few pax digits": (
        "cifar10",
        lambda: header("a", b"x", 60_000) + padded(b"1" * 60_000),
        "extended header is damaged",
    ),
    "consecutive pax headers": (
        "cifar10",
        lambda: 4000 * gzip.compress(header("a", b"x", 65_535) + 13_107 * b"5 a=\n" + b"\0", 1),
        "too many extended headers",
    ),
    "sparse": ("cifar10", lambda: header("a", b"S", 1 << 40) + bytes(1024), "neither a plain file"),
    "bz2 of zeros": (
        "cifar10",
        lambda: bz2.compress(header("a", size=1 << 27)) + 500 * bz2.compress(ZEROS),
        "un",
    ),
    "gz of zeros": ("cifar10", lambda: 500 * gzip.compress(ZEROS), "unpacks to more than 26843"),
    "PNG": (
        "pictures",
        lambda: zip_of({"a.png": png(9999, 9999, 16), "b.png": b""}),
        "a.png is 9999x9999, more than 33554432 pixels",
    ),
    "PNG as large as allowed": (
        "pictures",
        lambda: zip_of({"a.png": png(8192, 4096, 16), "b.png": b""}),
        "b.png is not a readable PNG",
    ),
    "PNG with an alpha channel": (
        "own",
        lambda: zip_of({"a.png": png(8192, 4096, 8, 6), "b.png": b""}),
        "image 'b.png' is not a readable",
    ),
    "WEBP as large as allowed": (
        "own",
        lambda: zip_of({"a.png": drawn("WEBP", (4000, 3000), "RGBA", method=0), "b.png": b""}),
        "image 'b.png' is not a readable",
    ),
    "progressive JPEG as large as allowed": (
        "own",
        lambda: zip_of(
            {
                "a.png": drawn("JPEG", (6000, 4500), "RGB", progressive=True, subsampling=0),
                "b.png": b"",
            }
        ),
        "image 'b.png' is not a readable",
    ),
    "TIFF as large as allowed, in one strip": (
        "own",
        lambda: zip_of(
            {
                "a.png": drawn(
                    "TIFF", (5000, 4000), "CMYK", compression="tiff_deflate", strip_size=1 << 30
                ),
                "b.png": b"",
            }
        ),
        "image 'b.png' is not a readable",
    ),
    "empty dicts": (
        "cifar10",
        lambda: zip_of({BATCHES + "data_batch_1": EMPTY_DICTS, BATCHES + "batches.meta": META}),
        "takes more than 2000000 steps",
    ),
    "a million deep": (
        "cifar10",
        lambda: zip_of({BATCHES + "batches.meta": b"\x80\x02)" + b"\x85" * 1_000_000 + b"."}),
        "more than 500 deep",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_the_archive_it_takes_little_memory_and_time(
    tmp_path: Path, reading: subprocess.Popen[str], name: str
) -> None:
    reader, make, reason = HOSTILE[name]
    path = tmp_path / "archive"
    path.write_bytes(make())
    assert path.stat().st_size < 16 << 20
    assert reading.stdin is not None
    assert reading.stdout is not None
    print(json.dumps([reader, str(path)]), file=reading.stdin, flush=True)
    answer = reading.stdout.readline()
    assert answer, "the reader failed: see stderr"
    message, megabytes, seconds = json.loads(answer)
    assert reason in message
    assert str(path) in message or ".png" in message
    assert megabytes < MEGABYTES
    assert seconds < SECONDS
