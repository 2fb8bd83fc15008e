"""CIFAR-100: the official archive for Python -> 28x28 images, prepared."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data_prep.archives import RemoteArchive, locate, read_tar_gz, refused
from data_prep.array_pickles import load_arrays
from data_prep.building import ImageBuilder, Prepared, prepare
from data_prep.images import resize_colour
from data_prep.progress import track
from tsar_jax.data import cifar100
from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError

ORIGINAL_SIDE = 32
# The official archive unpacks to 186 MB.
LARGEST_ARCHIVE = 1 << 28
MEMBERS = "cifar-100-python/"

# Size as published with the archive's page, digest as published with Keras.
REMOTE = RemoteArchive(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    size=169_001_437,
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)


class Cifar100At28(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """CIFAR-100 (Krizhevsky, 2009), colour, 28x28 by bilinear resampling, fine labels."""

    VERSION = tfds.core.Version(cifar100.PREPARED.version)
    name = cifar100.PREPARED.folder


def prepare_cifar100(archives: Path | None, out: Path, overwrite: bool = False) -> Prepared:
    """Prepares CIFAR-100 in `<out>/cifar100_28/1.0.0`: its archive in a folder, or downloaded.

    Images are stored at 28x28, resized from 32x32 by Pillow's bilinear filter, as torchvision's
    Resize does by default. Raises UserError if the archive is missing, damaged or not CIFAR-100's,
    or if `out` cannot be written.
    """

    def read() -> dict[str, ImageSet]:
        path = locate(REMOTE, archives, out / "downloads" / "cifar100")
        return read_archive(path, cifar100.CLASSES, cifar100.IMAGES_PER_CLASS)

    return prepare(Cifar100At28, read, out, overwrite)


def read_archive(path: Path, classes: int, per_class: Mapping[str, int]) -> dict[str, ImageSet]:
    """The splits, uint8 [classes, per_class[split], 28, 28, 3], in the order of their labels.

    Within a class the images keep the archive's order. Raises UserError if the archive is not as
    expected, and runs nothing that its pickles ask for.
    """
    members = read_tar_gz(path, LARGEST_ARCHIVE)
    meta = _unpickle(path, members, "meta")
    names = class_names(path, meta.get(b"fine_label_names"), classes)
    splits = {}
    for split, each in per_class.items():
        found = _unpickle(path, members, split)
        order = _order(path, split, found.get(b"fine_labels"), classes, each)
        pixels = _pixels(path, split, found.get(b"data"), len(order))
        images = _resized(pixels[order], f"Resizing {split}")
        splits[split] = ImageSet(images.reshape(classes, each, *images.shape[1:]), names)
    return splits


def _unpickle(path: Path, members: dict[str, bytes], name: str) -> dict[Any, Any]:
    """The dictionary that a member holds."""
    member = MEMBERS + name
    if member not in members:
        raise UserError(f"{path} has no member {member!r}: download the official archive again")
    try:
        found = load_arrays(members[member])
    except pickle.UnpicklingError as error:
        raise refused(path, member, " ".join(str(error).split())) from error
    if not isinstance(found, dict):
        raise refused(path, member, "it is not a dictionary")
    return found


def class_names(path: Path, names: object, classes: int) -> tuple[str, ...]:
    """Names from the archive's `meta`, ASCII bytes without spaces, all different."""
    member = MEMBERS + "meta"
    if not isinstance(names, list) or len(names) != classes:
        raise refused(path, member, f"it does not name {classes} classes")
    for name in names:
        if not isinstance(name, bytes) or not re.fullmatch(rb"[\w-]+", name):
            raise refused(path, member, f"{name!r:.80} is not a name of a class")
    if len(set(names)) != classes:
        raise refused(path, member, "two classes have the same name")
    return tuple(name.decode("ascii") for name in names)


def _order(path: Path, split: str, labels: object, classes: int, each: int) -> np.ndarray:
    """Labels of all images -> the images' indices, class after class."""
    member, count = MEMBERS + split, classes * each
    if not isinstance(labels, list) or len(labels) != count:
        raise refused(path, member, f"it does not have {count} fine labels")
    if not all(isinstance(label, int) and 0 <= label < classes for label in labels):
        raise refused(path, member, f"a fine label is not a number from 0 to {classes - 1}")
    counts = np.bincount(labels, minlength=classes)
    if (counts != each).any():
        wrong = int(np.argmax(counts != each))
        raise refused(path, member, f"class {wrong} has {counts[wrong]} images, not {each}")
    return np.argsort(labels, kind="stable")


def _pixels(path: Path, split: str, data: object, count: int) -> np.ndarray:
    """uint8 [count, 3072], red plane, green and blue -> [count, 32, 32, 3]."""
    shape = (count, 3 * ORIGINAL_SIDE**2)
    if not isinstance(data, np.ndarray) or data.shape != shape:
        raise refused(path, MEMBERS + split, f"its data are not an array of shape {list(shape)}")
    return data.reshape(count, 3, ORIGINAL_SIDE, ORIGINAL_SIDE).transpose(0, 2, 3, 1)


def _resized(images: np.ndarray, description: str) -> np.ndarray:
    side = cifar100.SIDE
    resized = np.empty((len(images), side, side, 3), np.uint8)
    for index, image in enumerate(track(images, len(images), description)):
        resized[index] = resize_colour(Image.fromarray(image), side)
    return resized
