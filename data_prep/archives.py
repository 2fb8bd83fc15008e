"""Archives of data sets, downloaded as whole files or found where the user has them."""

import hashlib
import http.client
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from tsar_jax.errors import UserError

from .progress import progress_bar
from .sources import Source, locate_source

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


def locate(
    remote: RemoteArchive,
    archives: Path | None,
    downloads: Path,
    holds: Callable[[Source], bool] = lambda folder: False,
) -> Path:
    """Return the path of an archive: in the user's folder where one is given, else downloaded.

    Archives of the user's own are not compared with the published SHA-256, so that the same images
    zipped anew will do; the data set's reader checks their content. A folder with the unpacked
    files, as `holds` recognises, will do as well.
    """
    if archives is None:
        return fetch(remote, downloads)
    missing = (
        f"{remote.filename} is not in {{archives}}, packed or unpacked, but {{found}}: put it "
        f"there (from {remote.url}), or leave out --archives to download it"
    )
    return locate_source(archives, remote.filename, holds, missing)


def fetch(remote: RemoteArchive, folder: Path) -> Path:
    """Download an archive into a folder unless it is there already, and return its path.

    An interrupted download leaves no file that could be taken for a whole one.
    """
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
    """Write the file, at most as many bytes as published, and return its SHA-256."""
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
