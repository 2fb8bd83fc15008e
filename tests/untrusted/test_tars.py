"""Extended headers of tar archives: of any number, and of any records, only what is wanted."""

import tarfile
from pathlib import Path

import pytest

from tsar_jax.errors import UserError
from tsar_jax.untrusted import tars


def header(name: str, kind: bytes = b"0", size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def extended(records: bytes) -> bytes:
    return header("pax", b"x", len(records)) + records + bytes(-len(records) % 512)


def member(name: str, data: bytes) -> bytes:
    return header(name, size=len(data)) + data + bytes(-len(data) % 512)


def written(path: Path, *pieces: bytes) -> Path:
    path.write_bytes(b"".join(pieces) + bytes(1024))
    return path


def test_of_many_records_only_path_size_and_sparse_marks_are_kept() -> None:
    others = b"".join(b"13 %08d=\n" % number for number in range(4000))
    records = tars._pax_records(others + b"9 path=a\n" + others + b"9 size=7\n")
    assert records == {"path": "a", "size": "7"}
    assert tars._pax_records(b"21 GNU.sparse.name=a\n") == {"sparse": ""}


def test_consecutive_headers_are_all_of_the_member_after_them(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tar",
        extended(b"11 path=no\n"),
        extended(b"12 path=yes\n"),
        extended(b"11 mtime=1\n"),
        member("short", b"data"),
        member("other", b"data"),
    )
    with tars.open_tar(path, 1 << 20) as archive:
        assert list(archive.members) == ["other", "yes"]


def test_a_sparse_mark_is_not_lost_among_consecutive_headers(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tar",
        extended(b"22 GNU.sparse.major=1\n"),
        extended(b"11 mtime=1\n"),
        member("a", b"data"),
    )
    with (
        pytest.raises(UserError, match="neither a plain file nor a folder"),
        tars.open_tar(path, 1 << 20),
    ):
        pass


def test_extended_headers_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.tar", 10 * extended(b"11 mtime=1\n"), member("a", b"data"))
    cost = 10 * (11 + tars.RECORD_COST)
    monkeypatch.setattr(tars, "MAX_EXTENDED", cost)
    with tars.open_tar(path, 1 << 20) as archive:
        assert list(archive.members) == ["a"]
    monkeypatch.setattr(tars, "MAX_EXTENDED", cost - 1)
    with (
        pytest.raises(UserError, match="too many extended headers"),
        tars.open_tar(path, 1 << 20),
    ):
        pass
