"""Shared parts of the readers of CIFAR-10's and CIFAR-100's archives for Python."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tsar_jax.errors import UserError, shown

from .array_pickles import load_arrays
from .sources import Source, open_source

SIDE = 32
# Either official archive unpacks to 186 MB, of which CIFAR-100's training images are 155.
LARGEST_ARCHIVE = 1 << 28
LARGEST_MEMBER = 160_000_000


@contextmanager
def open_archive(path: Path, folder: str, mark: str) -> Iterator["Archive"]:
    """Open the archive or folder at a path. Raises UserError if it cannot be read.

    Args:
        path: the archive or the folder.
        folder: folder of the members in the official archive, such as "cifar-10-batches-py/".
        mark: member whose position tells where the members lie in this archive.
    """
    with open_source(path, LARGEST_MEMBER, LARGEST_ARCHIVE) as source:
        yield Archive(source, folder, mark)


def as_bytes(value: Any) -> Any:
    """Return text as the bytes that Python 2 wrote for it, anything else unchanged."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


class Archive:
    """The members of an archive, by their names in the official one's folder."""

    def __init__(self, source: Source, folder: str, mark: str) -> None:
        roots = source.roots(mark)
        official = [root for root in roots if ("/" + root).endswith("/" + folder)]
        if len(official or roots) > 1:
            raise UserError(
                f"{source.where} holds {mark} {len(roots)} times ({', '.join(roots[:2])} ...): "
                "name the folder of one of them"
            )
        self.source = source.below((official or roots or [folder])[0])
        self.folder = folder

    def unpickle(self, member: str) -> dict[Any, Any]:
        """Return the dictionary in a member's pickle, without running any code that it names."""
        if member not in self.source.paths:
            raise UserError(
                f"{self.source.where} has no member {shown(self.folder + member)}, but "
                f"{self.source.found()}: download the official archive again"
            )
        try:
            found = load_arrays(self.source.read(member, LARGEST_MEMBER))
        except pickle.UnpicklingError as error:
            raise self.refused(member, " ".join(str(error).split())) from error
        if not isinstance(found, dict):
            raise self.refused(member, "it is not a dictionary")
        # Pickled anew under Python 3, the keys are often text.
        return {as_bytes(key): value for key, value in found.items()}

    def refused(self, member: str, reason: str) -> UserError:
        """Return the error for a member that is refused for a reason."""
        return self.source.refused(member, reason)

    def names(self, member: str, key: bytes, classes: int) -> tuple[str, ...]:
        """Return the names of a member's classes, ASCII bytes without spaces, all different."""
        names = self.unpickle(member).get(key)
        if not isinstance(names, list) or len(names) != classes:
            raise self.refused(member, f"it does not name {classes} classes")
        names = [as_bytes(name) for name in names]
        for name in names:
            if not isinstance(name, bytes) or not re.fullmatch(rb"[\w-]+", name):
                raise self.refused(member, f"{shown(name)} is not a name of a class")
        if len(set(names)) != classes:
            raise self.refused(member, "two classes have the same name")
        return tuple(name.decode("ascii") for name in names)

    def images(self, member: str, key: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the images in a member, uint8 [n, 32, 32, 3], and their labels, int32 [n].

        Labels are 0 to classes - 1. key: key of the labels in the member's dictionary.
        """
        found = self.unpickle(member)
        labels = found.get(key)
        kind = key.decode().replace("_", " ")
        if not isinstance(labels, list):
            raise self.refused(member, f"it does not list {kind}")
        if not all(isinstance(label, int) and 0 <= label < classes for label in labels):
            raise self.refused(member, f"one of its {kind} is not a number from 0 to {classes - 1}")
        data, shape = found.get(b"data"), (len(labels), 3 * SIDE**2)
        if not isinstance(data, np.ndarray) or data.shape != shape:
            raise self.refused(member, f"its data are not an array of shape {list(shape)}")
        # An image is stored as its red, its green and its blue plane.
        pixels = data.reshape(len(labels), 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        return pixels, np.array(labels, np.int32)
