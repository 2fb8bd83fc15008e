"""CIFAR-10: the official archive for Python -> 32x32 images, prepared."""

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from tsar_jax.data import cifar10
from tsar_jax.data.types import LabelledImages
from tsar_jax.errors import UserError

from .archives import RemoteArchive, locate
from .building import ImageBuilder, Prepared, prepare_labelled
from .cifar import open_archive

FOLDER = "cifar-10-batches-py/"
MEMBERS = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
MARK = "data_batch_1"

# Size as the archive's server tells it, digest as published with Keras.
REMOTE = RemoteArchive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    size=170_498_071,
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)


class Cifar10At32(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """CIFAR-10 (Krizhevsky, 2009), colour, 32x32, in the published order."""

    VERSION = tfds.core.Version(cifar10.PREPARED.version)
    name = cifar10.PREPARED.folder


def prepare_cifar10(archives: Path | None, out: Path, overwrite: bool = False) -> Prepared:
    """Prepare CIFAR-10 in `<out>/cifar10_32/1.0.0` from its archive in a folder, or downloaded.

    An archive of the same layout with fewer images will do.

    Raises:
        UserError: the archive is missing, damaged or not CIFAR-10's, a class has no images, or
            `out` cannot be written.
    """

    def read() -> dict[str, LabelledImages]:
        path = locate(
            REMOTE, archives, out / "downloads" / "cifar10", lambda folder: bool(folder.roots(MARK))
        )
        return read_archive(path)

    return prepare_labelled(Cifar10At32, read, out, overwrite)


def read_archive(path: Path) -> dict[str, LabelledImages]:
    """Return the splits "train" and "test", uint8 [images, 32, 32, 3], in the archive's order.

    No code that its pickles name is run. Raises UserError if the archive is not as expected.
    """
    splits = {}
    with open_archive(path, FOLDER, MARK) as archive:
        names = archive.names("batches.meta", b"label_names", cifar10.CLASSES)
        for split, members in MEMBERS.items():
            batches = [archive.images(member, b"labels", len(names)) for member in members]
            images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
            splits[split] = LabelledImages(images, labels, names)
    problem = cifar10.layout_problem(splits)
    if problem:
        raise UserError(f"{path} is not CIFAR-10, {problem}: download the official archive again")
    return splits
