"""Archives from elsewhere: fetched whole or not at all, and read without trust.

Nothing is ever extracted. Members are read into memory, and an archive in which any member has an
unsafe path or an implausible size is refused before the first is read.
"""

import gzip
import hashlib
import http.client
import io
import tarfile
import urllib.request
import zlib
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from data_prep.progress import progress_bar
from tsar_jax.errors import UserError
from tsar_jax.untrusted.zips import (
    LEADS_OUT,
    OCCURS_TWICE,
    is_unsafe,
    open_zip,
    read_member,
    refused,
    too_large,
    zip_members,
)

__all__ = [
    "RemoteArchive",
    "fetch",
    "is_unsafe",
    "locate",
    "open_zip",
    "read_member",
    "read_tar_gz",
    "refused",
    "zip_members",
]

TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 16


class RemoteArchive(NamedTuple):
    """A published archive: its address, its exact size in bytes and its SHA-256."""

    url: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def locate(remote: RemoteArchive, archives: Path | None, downloads: Path) -> Path:
    """The path of an archive: in the user's folder where one is given, else downloaded.

    Archives of the user's own are not compared with the published SHA-256, so that the same images
    zipped anew will do; what they must contain is for the data set's reader to check.
    """
    if archives is None:
        return fetch(remote, downloads)
    if not archives.is_dir():
        raise UserError(f"the archives folder {archives} does not exist: name one that does")
    path = archives / remote.filename
    if not path.is_file():
        raise UserError(
            f"{remote.filename} is not in {archives}: put it there (from {remote.url}), or leave "
            "out --archives to download it"
        )
    return path


def fetch(remote: RemoteArchive, folder: Path) -> Path:
    """Downloads an archive into a folder unless it is there already. Whole or not at all."""
    path = folder / remote.filename
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # a link of that name would be written through
        with progress_bar() as bar:
            digest = _download(remote, part, bar)
        if digest != remote.sha256:
            raise UserError(
                f"what came from {remote.url} is not the published file: try again, or download it "
                "by other means and name its folder with --archives"
            )
        part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"cannot download {remote.url} to {path} ({error}): download it by other means and "
            "name its folder with --archives"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _download(remote: RemoteArchive, part: Path, bar: Progress) -> str:
    """Writes the file, but never more than its published size, and gives its SHA-256."""
    sha256 = hashlib.sha256()
    task = bar.add_task(f"Downloading {remote.filename}", total=remote.size)
    with (
        urllib.request.urlopen(remote.url, timeout=TIMEOUT_SECONDS) as response,
        part.open("xb") as file,
    ):
        left = remote.size
        while left > 0 and (chunk := response.read(min(CHUNK_BYTES, left))):
            file.write(chunk)
            sha256.update(chunk)
            left -= len(chunk)
            bar.advance(task, len(chunk))
    return sha256.hexdigest()


def read_tar_gz(path: Path, largest: int) -> dict[str, bytes]:
    """The files of a tar.gz archive by path; no more than `largest` bytes of it are unpacked.

    Raises UserError if it is damaged, cut short or larger, or if a member is neither a file nor a
    folder, occurs twice, or has a path that leads out of the archive.
    """
    unpacked = io.BytesIO(_unpack(path, largest))
    try:
        with tarfile.open(fileobj=unpacked, mode="r:") as archive:
            members = _tar_members(path, archive, largest)
            return {member.name: _read_tar_member(path, archive, member) for member in members}
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        raise _incomplete(path, error) from error


def _unpack(path: Path, largest: int) -> bytes:
    # Whole and bounded before tarfile sees it, which trusts the sizes that headers declare.
    try:
        with gzip.open(path) as file:
            unpacked = file.read(largest + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise _incomplete(path, error) from error
    if len(unpacked) > largest:
        raise UserError(f"{path} unpacks to more than {largest} bytes: get the archive again")
    return unpacked


def _incomplete(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} is not a complete tar.gz archive ({error}): delete it and get it again"
    )


def _tar_members(path: Path, archive: tarfile.TarFile, largest: int) -> list[tarfile.TarInfo]:
    """The files of an archive, once every member has been found harmless."""
    members = []
    seen = set()
    for member in archive:
        name = member.name
        if is_unsafe(name):
            raise refused(path, name, LEADS_OUT)
        if name in seen:
            raise refused(path, name, OCCURS_TWICE)
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise refused(path, name, "it is neither a plain file nor a folder")
        # Checked before the next header is looked for, which lies that many bytes on.
        if not 0 <= member.size <= largest:
            raise refused(path, name, too_large(member.size, largest))
        seen.add(name)
        if member.isreg():
            members.append(member)
    return members


def _read_tar_member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise refused(path, member.name, f"it has {len(data)} of {member.size} bytes")
    return data
