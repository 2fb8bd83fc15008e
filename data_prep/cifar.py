"""What the archives of CIFAR-10 and CIFAR-100 for Python have in common, read without trust."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.archives import read_tar_gz, refused
from data_prep.array_pickles import load_arrays
from tsar_jax.errors import UserError, shown

SIDE = 32
# Either official archive unpacks to 186 MB.
LARGEST_ARCHIVE = 1 << 28


class Archive:
    """The members of an archive by path. Raises UserError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members = read_tar_gz(path, LARGEST_ARCHIVE)

    def unpickle(self, member: str) -> dict[Any, Any]:
        """The dictionary that a member holds; nothing that its pickle asks for is run."""
        if member not in self._members:
            raise UserError(
                f"{self.path} has no member {shown(member)}: download the official archive again"
            )
        try:
            found = load_arrays(self._members[member])
        except pickle.UnpicklingError as error:
            raise self.refused(member, " ".join(str(error).split())) from error
        if not isinstance(found, dict):
            raise self.refused(member, "it is not a dictionary")
        return found

    def refused(self, member: str, reason: str) -> UserError:
        """The error that the archive deserves for a member that is not as expected."""
        return refused(self.path, member, reason)

    def names(self, member: str, key: bytes, classes: int) -> tuple[str, ...]:
        """The names of the classes in a member, ASCII bytes without spaces, all different."""
        names = self.unpickle(member).get(key)
        if not isinstance(names, list) or len(names) != classes:
            raise self.refused(member, f"it does not name {classes} classes")
        for name in names:
            if not isinstance(name, bytes) or not re.fullmatch(rb"[\w-]+", name):
                raise self.refused(member, f"{shown(name)} is not a name of a class")
        if len(set(names)) != classes:
            raise self.refused(member, "two classes have the same name")
        return tuple(name.decode("ascii") for name in names)

    def images(self, member: str, key: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [n, 32, 32, 3] and the labels under a key, int32 [n], 0 to classes - 1."""
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
        # Of an image, the red plane, the green one and the blue one.
        pixels = data.reshape(len(labels), 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        return pixels, np.array(labels, np.int32)
