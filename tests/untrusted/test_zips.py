"""Zip archives from elsewhere: what zipfile is kept from, and what is refused."""

import io
import struct
import zipfile

import pytest

from tsar_jax.errors import UserError
from tsar_jax.untrusted.zips import MAX_DIRECTORY, is_unsafe, open_zip, read_member, zip_members


def archive(comment: bytes = b"") -> bytes:
    """An archive of one member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr("a", b"content")
        opened.comment = comment
    return stream.getvalue()


def opened(path, data: bytes) -> bytes:
    """What the archive's member holds."""
    path.write_bytes(data)
    with path.open("rb") as file, open_zip(path, file) as found:
        (member,) = zip_members(found, 100)
        return read_member(found, member)


def test_an_archive_is_read_with_and_without_a_comment(tmp_path) -> None:
    assert opened(tmp_path / "a", archive()) == b"content"
    assert opened(tmp_path / "a", archive(b"A comment.")) == b"content"


def ending(size: int, disks: int = 0, comment: bytes = b"") -> bytes:
    """A record that ends an archive whose list of members takes `size` bytes."""
    return struct.pack("<4s4H2IH", b"PK\5\6", disks, 0, 1, 1, size, 0, len(comment)) + comment


def test_a_list_of_members_that_would_fill_the_memory_is_refused(tmp_path) -> None:
    huge = MAX_DIRECTORY + 1
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, huge, 0)
    wide += struct.pack("<4sIQI", b"PK\6\7", 0, 0, 1) + ending(0xFFFFFFFF)
    # zipfile takes the record at the very end, not the last signature, which lies within it.
    signed = bytearray(ending(huge))
    signed[16:20] = b"PK\5\6"
    for data in (ending(huge), ending(huge, comment=b"x"), wide, bytes(30) + bytes(signed)):
        with pytest.raises(UserError, match=f"takes {huge} bytes"):
            opened(tmp_path / "a", data)


def test_parts_of_an_archive_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="one of several parts"):
        opened(tmp_path / "a", ending(0, disks=1))


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"text" * 100, archive()[:-30], ending(9)[:10]],
    # The cut archive holds the time, so its bytes name no test.
    ids=["empty", "two letters", "text", "cut archive", "cut ending"],
)
def test_what_is_no_archive_is_refused(tmp_path, data) -> None:
    with pytest.raises(UserError, match="not a complete zip archive"):
        opened(tmp_path / "a", data)


def test_a_member_that_was_changed_or_is_too_large_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="CRC"):
        opened(tmp_path / "a", archive().replace(b"content", b"another"))
    with (
        open_zip(tmp_path / "a") as found,
        pytest.raises(UserError, match="holds 7 bytes, not 6"),
    ):
        zip_members(found, 6)


@pytest.mark.parametrize(
    ("name", "unsafe"),
    [
        *(("a/b", False), ("a..b/c", False), ("/a", True), ("a/../b", True)),
        *(("..\\a", True), ("C:a", True), ("\\a", True)),
    ],
)
def test_paths_that_lead_out_are_unsafe(name, unsafe) -> None:
    assert is_unsafe(name) == unsafe
