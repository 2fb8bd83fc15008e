"""Sources of images, which readers need not tell apart: zip and tar archives, and folders.

A source is a set of files by plain path: no "./", no backslashes, nothing that a system or a file
manager added. What an archive is, its content tells and not its name. Readers look for the root of
a data set among the paths and assume none, so that an extra top folder does no harm.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tsar_jax.errors import UserError, shown
from tsar_jax.untrusted.compression import ERRORS, HEAD, compression_of, unpacked, unread_kind
from tsar_jax.untrusted.names import is_litter, plain_name
from tsar_jax.untrusted.tars import BLOCK, is_tar_header, open_tar
from tsar_jax.untrusted.zips import (
    MAX_MEMBERS,
    open_zip,
    read_member,
    refused,
    too_large,
    zip_members,
)

SHOWN = 3
"""Largest number of files that a message names."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Files to read.

    where: the archive or the folder. paths: by plain path below `root`, sorted, the names by which
    `reader` knows the files.
    """

    where: Path
    paths: Mapping[str, str]
    reader: Callable[[str, int], bytes]
    root: str = ""

    def read(self, name: str, largest: int) -> bytes:
        """Return the bytes of a file. Raises UserError if it is damaged or too large."""
        return self.reader(self.paths[name], largest)

    def below(self, root: str) -> "Source":
        """Return the files in a folder, "" or "a/b/", by their paths from there."""
        inside = {
            name.removeprefix(root): key
            for name, key in self.paths.items()
            if name.startswith(root)
        }
        return dataclasses.replace(self, paths=inside, root=self.root + root)

    def roots(self, path: str) -> list[str]:
        """Return the folders, each "" or like "a/b/", that hold a file or a folder of this path."""
        found = {
            ("/" + name + "/").partition(f"/{path}/")[0] + "/"
            for name in self.paths
            if f"/{path}/" in f"/{name}/"
        }
        return sorted(
            (root.removeprefix("/") for root in found), key=lambda root: (len(root), root)
        )

    def refused(self, name: str, reason: str) -> UserError:
        """Return the error for a file that is refused for a reason."""
        return refused(self.where, self.root + name, reason)

    def found(self) -> str:
        """Return a description of the files for a message: how many, and the first of them."""
        shown = ", ".join(repr(self.root + name)[:80] for name in list(self.paths)[:SHOWN])
        more = ", ..." if len(self.paths) > SHOWN else ""
        count = len(self.paths)
        return f"{count} file{'s' * (count != 1)}" + (f" ({shown}{more})" if count else "")


def kind_of(path: Path) -> str | None:
    """Return "zip", "tar" or None for a file that is neither, by its content."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if head.startswith((b"PK\3\4", b"PK\5\6")):
                return "zip"
            file.seek(0)
            return "tar" if is_tar_header(unpacked(file).read(BLOCK)) else None
    except ERRORS:
        return None


@contextmanager
def open_source(path: Path, largest: int, total: int | None = None) -> Iterator[Source]:
    """Open an archive or a folder as a source of files.

    Args:
        path: a zip, a tar or a folder.
        largest: size of the largest file that is accepted, in bytes.
        total: bytes that a compressed tar may unpack to; None: as in `open_tar`.

    Raises:
        UserError: it is none of these, it is damaged, or one of its files is refused.
    """
    if path.is_dir():
        yield folder_source(path)
    elif _is_zip(path):
        with open_zip(path) as archive:
            members = {member.filename: member for member in zip_members(archive, largest)}
            paths = dict(sorted((plain_name(name), name) for name in members))

            def read(name: str, most: int) -> bytes:
                check_size(path, name, members[name].file_size, most)
                return read_member(archive, members[name])

            yield Source(path, paths, read)
    else:
        with open_tar(path, largest, total) as tar:

            def read_tar(name: str, most: int) -> bytes:
                check_size(path, name, tar.members[name].size, most)
                return tar.read(name)

            yield Source(path, {name: name for name in tar.members}, read_tar)


def check_size(where: Path, name: str, size: int, largest: int) -> None:
    """Raise UserError for a file of more than `largest` bytes."""
    if size > largest:
        raise refused(where, name, too_large(size, largest))


def check_class_folder(where: Path, name: str) -> None:
    """Raise UserError for a folder's name that cannot be a class's, kept as one line of UTF-8."""
    if not name.isprintable() or name != name.strip():
        raise UserError(
            f"{where} has a class's folder {shown(name)}, whose name is not plain text in UTF-8 "
            "without control characters or blanks around it: rename the folder"
        )


def _is_zip(path: Path) -> bool:
    """Return whether a file is to be read as a zip. Raises UserError for an unread kind."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): make it readable") from error
    if kind := unread_kind(head):
        raise UserError(
            f"{path} is a {kind} archive, of which only zip and tar (.gz, .bz2, .xz) are read: "
            "unpack it and name the folder"
        )
    compressed = compression_of(head) is not None
    return kind_of(path) == "zip" or (not compressed and path.suffix == ".zip")


def folder_source(folder: Path) -> Source:
    """Return the files of a folder and of those in it."""
    paths = {}
    for path in _walk(folder):
        name = os.path.relpath(path, folder)
        plain = plain_name(name)
        if is_litter(plain):
            continue
        if plain in paths:
            raise refused(folder, name, "another has the same path")
        paths[plain] = path
        if len(paths) > MAX_MEMBERS:
            raise UserError(
                f"{folder} holds more than {MAX_MEMBERS} files: name the folder of the data alone"
            )
    return Source(folder, dict(sorted(paths.items())), lambda path, most: _read(folder, path, most))


def _walk(top: Path) -> Iterator[str]:
    """Yield the paths of all files; folders are entered once, however many links lead to them."""
    seen: set[tuple[int, int]] = set()
    folders = [os.fspath(top)]
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_file():
                        yield entry.path
                    elif entry.is_dir() and not is_litter(entry.name):
                        folders.append(entry.path)
        except OSError as error:
            raise UserError(f"cannot read {folder} ({error.strerror}): make it readable") from error


def _read(folder: Path, path: str, largest: int) -> bytes:
    name = os.path.relpath(path, folder)
    try:
        check_size(folder, name, os.stat(path).st_size, largest)
        with open(path, "rb") as file:
            return file.read(largest)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): make it readable") from error


def locate_source(
    archives: Path,
    filename: str,
    holds: Callable[[Source], bool],
    missing: str,
) -> Path:
    """Return the path of the archive or the folder to read, within the path that the user named.

    Args:
        archives: a folder with the archive or with its files, or the archive itself.
        filename: the published name of the archive; "": there is none, but archives that others
            made will do.
        holds: whether a folder has the data unpacked.
        missing: what is missing, and where to get it, for the error.

    Raises:
        UserError: there is neither.
    """
    if archives.is_file():
        return archives
    if not archives.is_dir():
        raise UserError(f"the archives folder {archives} does not exist: name one that does")
    if filename and (archives / filename).is_file():
        return archives / filename
    folder = folder_source(archives)
    if holds(folder):
        return archives
    found = _archives(folder, filename)
    if len(found) == 1:
        return found[0]
    raise UserError(f"{missing.format(archives=archives, found=folder.found())}")


def _archives(folder: Source, filename: str) -> list[Path]:
    """Return the archives of that name, else those with another ending, else all there are."""
    paths = [Path(key) for key in folder.paths.values()]
    stem = filename.split(".")[0].lower()
    named = [path for path in paths if path.name == filename]
    alike = [path for path in paths if path.name.split(".")[0].lower() == stem]
    # Others are opened to see what they are, where there are few of them.
    for some in (named, alike, paths[: 10 * SHOWN]):
        if found := [path for path in some if kind_of(path)]:
            return found
    return []
