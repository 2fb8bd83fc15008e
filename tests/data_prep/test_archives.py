"""Archives: fetched whole or not at all, and read without trust."""

import contextlib
import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cifar100 import write_tar_members

from data_prep.archives import RemoteArchive, fetch, locate
from tsar_jax.errors import UserError
from tsar_jax.untrusted.names import is_unsafe
from tsar_jax.untrusted.tars import open_tar
from tsar_jax.untrusted.zips import open_zip, read_member, zip_members

PARTS = st.text(st.characters(exclude_characters="/\\:\0", codec="utf-8"), min_size=1).filter(
    lambda part: part not in (".", "..")
)
PATHS = st.lists(PARTS, min_size=1, max_size=5)


@given(PATHS, st.data())
def test_a_path_with_a_parent_in_it_is_unsafe(parts: list[str], data: st.DataObject) -> None:
    where = data.draw(st.integers(0, len(parts)))
    separator = data.draw(st.sampled_from("/\\"))
    assert is_unsafe(separator.join([*parts[:where], "..", *parts[where:]]))


@given(PATHS, st.sampled_from(["/", "\\", "//", "C:/", "c:\\", "C:"]))
def test_an_absolute_path_is_unsafe(parts: list[str], root: str) -> None:
    assert is_unsafe(root + "/".join(parts))


@given(PATHS)
def test_a_path_below_the_folder_is_safe(parts: list[str]) -> None:
    assert not PurePosixPath(*parts).is_absolute()
    assert not is_unsafe("/".join(parts))


def write(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_members_are_files_in_sorted_order_without_the_litter_of_macos(tmp_path: Path) -> None:
    names = ["b/2", "a/", "b/1", "__MACOSX/b/1", "b/.DS_Store", "a"]
    path = write(tmp_path / "a.zip", *((name, b"") for name in names))
    with open_zip(path) as archive:
        assert [member.filename for member in zip_members(archive, 10)] == ["a", "b/1", "b/2"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("good", b""), ("../evil", b"")], "leads out of the archive"),
        ([("/etc/evil", b"")], "leads out of the archive"),
        ([("bomb", bytes(1001))], "holds 1001 bytes, not 1000"),
        ([("twin", b"1"), ("twin", b"2")], "occurs twice"),
    ],
)
def test_an_archive_with_an_unsafe_member_is_refused_whole(
    tmp_path: Path, members: list[tuple[str, bytes]], reason: str
) -> None:
    path = write(tmp_path / "a.zip", *members)
    with open_zip(path) as archive, pytest.raises(UserError, match=reason) as error:
        zip_members(archive, 1000)
    assert str(path) in str(error.value)
    assert members[-1][0] in str(error.value)


def test_a_member_never_yields_more_than_it_declares(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", ("liar", bytes(100_000)))
    data = path.read_bytes()
    path.write_bytes(data.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with open_zip(path) as archive, pytest.raises(UserError, match="liar"):
        read_member(archive, *zip_members(archive, 1000))


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", ("a", bytes(range(256))))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"a\.zip is not a complete zip archive"), open_zip(path):
        pass


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    content = bytes(range(256))
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", content)
    path.write_bytes(path.read_bytes().replace(content, content[::-1]))
    with open_zip(path) as archive, pytest.raises(UserError, match="CRC"):
        read_member(archive, *zip_members(archive, 1000))


def member(name: str, **attributes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


FOLDER = member("a", type=tarfile.DIRTYPE)
SMALL = 20_000


def read_tar(path: Path, largest: int) -> dict[str, bytes]:
    with open_tar(path, largest, largest) as tar:
        return {name: tar.read(name) for name in tar.members}


def test_the_files_of_a_tar_archive_are_read(tmp_path: Path) -> None:
    members = [(FOLDER, b""), (member("a/2"), b"two"), (member("a/1"), b"")]
    path = write_tar_members(tmp_path / "a.tar.gz", members)
    assert read_tar(path, SMALL) == {"a/1": b"", "a/2": b"two"}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([(member("good"), b""), (member("../evil"), b"")], "leads out of the archive"),
        ([(member("/etc/evil"), b"")], "leads out of the archive"),
        ([(member("twin"), b"1"), (member("twin"), b"2")], "occurs twice"),
        ([(member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")], "neither a plain"),
        ([(member("link", type=tarfile.LNKTYPE, linkname="good"), b"")], "neither a plain file"),
        ([(member("pipe", type=tarfile.FIFOTYPE), b"")], "neither a plain file nor a folder"),
        ([(member("device", type=tarfile.CHRTYPE), b"")], "neither a plain file nor a folder"),
    ],
)
def test_a_tar_archive_with_an_unsafe_member_is_refused_whole(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], reason: str
) -> None:
    path = write_tar_members(tmp_path / "a.tar.gz", members)
    with pytest.raises(UserError, match=reason) as error:
        read_tar(path, SMALL)
    assert str(path) in str(error.value)
    assert members[-1][0].name in str(error.value)


@pytest.mark.parametrize("size", [SMALL + 1, 1 << 40, -1, -512])
def test_a_tar_member_that_declares_an_impossible_size_is_refused(
    tmp_path: Path, size: int
) -> None:
    header = member("liar", size=size).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header + bytes(1024)))
    with pytest.raises(UserError, match=rf"'liar'.*holds {size} bytes, not {SMALL}"):
        read_tar(tmp_path / "a.tar.gz", SMALL)


def test_a_tar_member_that_declares_more_than_there_is_is_refused(tmp_path: Path) -> None:
    header = member("liar", size=5000).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header + bytes(1024)))
    with pytest.raises(UserError, match=r"not a complete tar\.gz archive.*unexpected end of data"):
        read_tar(tmp_path / "a.tar.gz", SMALL)


def test_no_more_than_allowed_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(UserError, match=f"{path} unpacks to more than {SMALL} bytes"):
        read_tar(path, SMALL)


WHOLE_TAR = io.BytesIO()
with tarfile.open(fileobj=WHOLE_TAR, mode="w:gz") as archive:
    archive.addfile(member("a", size=500), io.BytesIO(bytes(range(250)) * 2))


@given(length=st.integers(0, len(WHOLE_TAR.getvalue()) - 1))
def test_a_truncated_tar_archive_is_refused(tmp_path_factory, length: int) -> None:
    path = tmp_path_factory.mktemp("truncated") / "a.tar.gz"
    path.write_bytes(WHOLE_TAR.getvalue()[:length])
    with pytest.raises(UserError, match=r"a\.tar\.gz is not a complete tar[.gz]* archive"):
        read_tar(path, SMALL)


@given(position=st.integers(0, 511), value=st.integers(0, 255))
def test_a_damaged_tar_header_is_read_or_refused(
    tmp_path_factory, position: int, value: int
) -> None:
    tar = bytearray(gzip.decompress(WHOLE_TAR.getvalue()))
    tar[position] = value
    header = bytes(tar[:148]) + b" " * 8 + bytes(tar[156:512])
    tar[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path_factory.mktemp("damaged") / "a.tar.gz"
    path.write_bytes(gzip.compress(bytes(tar)))
    with contextlib.suppress(UserError):
        assert all(len(data) <= SMALL for data in read_tar(path, SMALL).values())


CONTENT = b"an archive" * 20_000


def remote(url: str, content: bytes = CONTENT) -> RemoteArchive:
    return RemoteArchive(url, len(content), hashlib.sha256(content).hexdigest())


def test_a_download_is_fetched_once(tmp_path: Path) -> None:
    source = tmp_path / "a.zip"
    source.write_bytes(CONTENT)
    folder = tmp_path / "new" / "downloads"
    path = fetch(remote(source.as_uri()), folder)
    assert path.read_bytes() == CONTENT
    source.unlink()
    assert fetch(remote(source.as_uri()), folder) == path
    assert list(folder.iterdir()) == [path]


def test_a_download_of_other_content_is_not_kept(tmp_path: Path) -> None:
    source = tmp_path / "a.zip"
    source.write_bytes(CONTENT)
    folder = tmp_path / "downloads"
    with pytest.raises(UserError, match="is not the published file"):
        fetch(remote(source.as_uri(), CONTENT[::-1]), folder)
    assert not list(folder.iterdir())


def test_a_download_that_breaks_off_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class BreaksOff(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: len(CONTENT) // 2])

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), BreaksOff) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(UserError, match="--archives"):
            fetch(remote(f"http://127.0.0.1:{server.server_port}/a.zip"), tmp_path)
        thread.join()
    assert not list(tmp_path.iterdir())


def test_an_unreachable_address_is_a_clear_error(tmp_path: Path) -> None:
    address = (tmp_path / "nothing.zip").as_uri()
    with pytest.raises(UserError, match=r"cannot download file:.*nothing\.zip.*--archives"):
        fetch(remote(address), tmp_path / "downloads")


def test_the_users_own_archives_are_looked_for_by_name(tmp_path: Path) -> None:
    wanted = remote("https://nowhere.invalid/a.zip")
    with pytest.raises(UserError, match="missing does not exist"):
        locate(wanted, tmp_path / "missing", tmp_path)
    with pytest.raises(UserError, match=r"a\.zip is not in .* 0 files: .*nowhere\.invalid"):
        locate(wanted, tmp_path, tmp_path)
    (tmp_path / "a.zip").write_bytes(b"")
    assert locate(wanted, tmp_path, tmp_path / "unused") == tmp_path / "a.zip"
