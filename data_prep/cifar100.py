"""CIFAR-100: the official archive for Python -> 32x32 and 28x28 images, prepared."""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tsar_jax.data import cifar100
from tsar_jax.data.types import ImageSet

from .archives import RemoteArchive, locate
from .building import ImageBuilder, Prepared, prepare
from .cifar import Archive, open_archive
from .images import resize_colour
from .progress import track
from .sources import Source

FOLDER = "cifar-100-python/"
MARK = "meta"

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


class Cifar100At32(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """CIFAR-100 (Krizhevsky, 2009), colour, 32x32, fine labels."""

    VERSION = tfds.core.Version(cifar100.PREPARED_AT_32.version)
    name = cifar100.PREPARED_AT_32.folder


def prepare_cifar100(
    archives: Path | None, out: Path, overwrite: bool = False
) -> tuple[Prepared, Prepared]:
    """Prepare CIFAR-100 in `<out>/cifar100_28/1.0.0` and, as it is, in `<out>/cifar100_32/1.0.0`.

    Its archive lies in a folder or is downloaded. For the former images are resized from 32x32 by
    Pillow's bilinear filter, as torchvision's Resize does by default.

    Raises:
        UserError: the archive is missing, damaged or not CIFAR-100's, or `out` cannot be written.
    """

    @functools.cache
    def read() -> dict[str, ImageSet]:
        path = locate(REMOTE, archives, out / "downloads" / "cifar100", is_cifar100)
        return read_archive(path, cifar100.CLASSES, cifar100.IMAGES_PER_CLASS)

    def read_resized() -> dict[str, ImageSet]:
        return {split: _resized(images, split) for split, images in read().items()}

    return (
        prepare(Cifar100At28, read_resized, out, overwrite),
        prepare(Cifar100At32, read, out, overwrite),
    )


def is_cifar100(folder: Source) -> bool:
    """Return whether a folder has the archive's three members side by side."""
    return any(
        {"meta", "train", "test"} <= folder.below(root).paths.keys() for root in folder.roots(MARK)
    )


def read_archive(path: Path, classes: int, per_class: Mapping[str, int]) -> dict[str, ImageSet]:
    """Return the splits, uint8 [classes, per_class[split], 32, 32, 3], in the order of labels.

    Within a class the images keep the archive's order. No code that its pickles name is run. Raises
    UserError if the archive is not as expected.
    """
    with open_archive(path, FOLDER, MARK) as archive:
        names = archive.names("meta", b"fine_label_names", classes)
        return {
            split: _read_split(archive, split, names, each) for split, each in per_class.items()
        }


def _read_split(archive: Archive, member: str, names: tuple[str, ...], each: int) -> ImageSet:
    pixels, labels = archive.images(member, b"fine_labels", len(names))
    counts = np.bincount(labels, minlength=len(names))
    if (counts != each).any():
        wrong = int(np.argmax(counts != each))
        raise archive.refused(member, f"class {wrong} has {counts[wrong]} images, not {each}")
    ordered = pixels[np.argsort(labels, kind="stable")]
    return ImageSet(ordered.reshape(len(names), each, *pixels.shape[1:]), names)


def _resized(images: ImageSet, split: str) -> ImageSet:
    classes, each, *shape = images.images.shape
    flat = images.images.reshape(classes * each, *shape)
    side = cifar100.SIDE
    resized = np.empty((len(flat), side, side, 3), np.uint8)
    for index, image in enumerate(track(flat, len(flat), f"Resizing {split}")):
        resized[index] = resize_colour(Image.fromarray(image), side)
    return ImageSet(resized.reshape(classes, each, side, side, 3), images.names)
