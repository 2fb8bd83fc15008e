"""IDX files, whole ones and others."""

import bz2
import gzip
import lzma
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from small_idx import idx

from data_prep import idx as reader
from data_prep.idx import File, read_file, read_idx
from data_prep.sources import folder_source
from tsar_jax.errors import UserError

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
SHAPES = npst.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6)


@given(npst.arrays(np.uint8, SHAPES), st.booleans())
def test_what_is_written_is_what_is_read(values: np.ndarray, compressed: bool) -> None:
    data = idx(values)
    found = read_idx(File("file", gzip.compress(data) if compressed else data), values.ndim)
    np.testing.assert_array_equal(found, values, strict=True)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compression_is_told_by_content(pack) -> None:
    found = read_idx(File("x.gz", pack(idx(IMAGES))), 3)
    np.testing.assert_array_equal(found, IMAGES, strict=True)


@given(st.binary(max_size=64), st.booleans(), st.integers(1, 3))
def test_nonsense_is_one_clear_sentence(data: bytes, compressed: bool, dimensions: int) -> None:
    data = idx(IMAGES)[: len(data) % 20] + data
    message = ""
    try:
        found = read_idx(File("x.gz", gzip.compress(data) if compressed else data), dimensions)
    except UserError as error:
        message = str(error)
    pattern = r"x\.gz is not the IDX file it should be \(.+\): get it again"
    assert re.fullmatch(pattern, message) or idx(found) == data


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends within its header, after 0 bytes"),
        (idx(IMAGES)[:15], "ends within its header, after 15 bytes"),
        (idx(IMAGES)[:-1], "ends after 23 of 24 values"),
        (idx(IMAGES) + b"\0", "goes on after its 24 values"),
        (idx(IMAGES, type_code=13), "0x00000d03, not 0x00000803, that of unsigned bytes in 3 dim"),
        (idx(IMAGES[0]) + bytes(8), "magic number is 0x00000802, not 0x00000803"),
        (b"\xff" + idx(IMAGES)[1:], "magic number is 0xff000803"),
        (idx(IMAGES[:0]), "declares 0 x 3 x 4 values, not 1 to 134217728"),
        (idx(IMAGES)[:4] + b"\xff" * 12, "declares 4294967295 x 4294967295 x 4294967295 values"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(
    data: bytes, reason: str, compressed: bool
) -> None:
    with pytest.raises(UserError, match=r"^a/b\.gz is not the IDX file") as error:
        read_idx(File("a/b.gz", gzip.compress(data) if compressed else data), 3)
    assert reason in str(error.value)


def test_a_damaged_gzip_stream_is_refused() -> None:
    whole = gzip.compress(idx(IMAGES))
    for data, reason in {
        whole[:-12]: "Compressed file ended",
        whole[:-1]: "Compressed file ended",
        whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]: "CRC check failed",
        whole + b"more": "Not a gzipped file",
        whole[:10] + b"\xff" * 20: "invalid block type",
    }.items():
        with pytest.raises(UserError, match=rf"should be \(.*{reason}"):
            read_idx(File("file", data), 3)


def test_no_more_is_unpacked_than_the_header_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    read = gzip.GzipFile.read

    def watched(stream: gzip.GzipFile, size: int = -1) -> bytes:
        asked.append(size)
        return read(stream, size)

    monkeypatch.setattr(gzip.GzipFile, "read", watched)
    with pytest.raises(UserError, match="goes on after its 24 values"):
        read_idx(File("bomb", gzip.compress(idx(IMAGES) + bytes(1 << 20))), 3)
    assert asked == [16, 24, 1]


def test_a_file_is_found_by_its_official_name_and_others_and_nearest_to_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "train-images-idx3-ubyte"

    def found() -> bytes:
        return read_file(folder_source(tmp_path), name, "ask a friend").data

    with pytest.raises(UserError, match=rf"has no file {name}\.gz, but 0 files: ask a friend"):
        found()
    (tmp_path / "._train-images-idx3-ubyte").write_bytes(b"litter")
    for path in (f"a/{name}/train-images.idx3-ubyte", f"b/{name}.xz", name, f"{name}.gz"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
        assert found() == path.encode()
    monkeypatch.setattr(reader, "LARGEST", 5)
    with pytest.raises(UserError, match=rf"{name}\.gz.* holds \d+ bytes, not 5"):
        found()
