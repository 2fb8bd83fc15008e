"""Labelled images of 28x28, from IDX files or from tensorflow-datasets, to be grouped by class."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError

from tsar_jax.data.labelled import first_of_each
from tsar_jax.data.types import ImageSet, LabelledImages
from tsar_jax.errors import UserError

from .idx import File, read_idx, refused
from .images import open_image
from .progress import track

SIDE = 28


class Labelled(NamedTuple):
    """Images with labels.

    images: uint8 [images, 28, 28]. labels: [images]. source: their name in error messages.
    """

    images: np.ndarray
    labels: np.ndarray
    source: str


def read_labelled(images_file: File, labels_file: File) -> Labelled:
    """Return the images and labels of two IDX files. Raises UserError if they do not match."""
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if images.shape[1:] != (SIDE, SIDE):
        height, width = images.shape[1:]
        raise refused(images_file.name, f"its images are {height}x{width}, not {SIDE}x{SIDE}")
    if len(labels) != len(images):
        raise refused(
            labels_file.name,
            f"it has {len(labels)} labels for the {len(images)} images of {images_file.name}",
        )
    return Labelled(images, labels, labels_file.name)


def read_tfds(name: str, folder: Path, split: str) -> Labelled:
    """Return a split of a data set prepared by tensorflow-datasets' own builder, in its order.

    name: name of the data set for `tfds.builder`. Raises UserError unless it lies in `folder`,
    undamaged, and in array_record format: the other ones need TensorFlow.
    """
    where = f"{name} in {folder}"
    # tensorflow-datasets decodes by OpenCV, or tells the user to install it.
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        source = tfds.builder(name, data_dir=folder).as_data_source(split=split, decoders=decoders)
        examples = list(track(source, len(source), f"Reading {split}"))
        images = np.stack([_read_png(example["image"], where) for example in examples])
        labels = np.array([example["label"] for example in examples])
    except NotImplementedError as error:
        raise UserError(
            f"{folder} has no {name} in array_record format, all that is read without TensorFlow: "
            f'run `tfds.builder("{name}", data_dir=DIR).download_and_prepare('
            'file_format="array_record")` where TensorFlow is installed and name DIR'
        ) from error
    except UserError:
        raise
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, DecodeError) as error:
        raise UserError(
            f"{where} cannot be read ({' '.join(str(error).split()):.200}): prepare it anew with "
            "tensorflow-datasets, or take the official files with --archives"
        ) from error
    return Labelled(images, labels, f"split {split!r} of {where}")


def _read_png(data: bytes, where: str) -> np.ndarray:
    """Return one image of a data set of tensorflow-datasets, grey uint8 [28, 28]."""
    wrong, remedy = f"an image of {where}", "take the official files with --archives"
    with open_image(data, ("PNG",), wrong, remedy) as image:
        if image.size != (SIDE, SIDE) or image.mode != "L":
            width, height = image.size
            raise UserError(
                f"{wrong} is {width}x{height} and {image.mode}, not {SIDE}x{SIDE} and L, grey: "
                f"{remedy}"
            )
        return np.asarray(image)


def group(
    labelled: Labelled, names: tuple[str, ...], count: int, per_class: int, title: str
) -> ImageSet:
    """Return the first images of every class, in their order: uint8 [classes, per_class, 28, 28].

    The arguments and errors are those of `check`.
    """
    return first_of_each(check(labelled, names, count, per_class, title), per_class)


def check(
    labelled: Labelled, names: tuple[str, ...], count: int, per_class: int, title: str
) -> LabelledImages:
    """Return all images, in their order, after checking their numbers.

    Args:
        labelled: the images.
        names: names of the classes, whose labels are 0, 1, ...
        count: number of images.
        per_class: smallest number of images of a class.
        title: name of the data set, for error messages.

    Raises:
        UserError: the numbers are wrong, or a label is of none of the classes.
    """
    labels = labelled.labels.astype(np.int64)
    wrong = f"{labelled.source} is not of {title}"
    remedy = "take the data as they are published"
    if len(labels) != count:
        raise UserError(f"{wrong}, it has {len(labels)} images, not {count}: {remedy}")
    outside = labels[(labels < 0) | (labels >= len(names))]
    if len(outside):
        raise UserError(f"{wrong}, a label is {outside[0]}, not 0 to {len(names) - 1}: {remedy}")
    counts = np.bincount(labels, minlength=len(names))
    if (counts < per_class).any():
        rare = int(np.argmax(counts < per_class))
        raise UserError(
            f"{wrong}, it has {counts[rare]} images of class {names[rare]!r}, not {per_class}: "
            f"{remedy}"
        )
    return LabelledImages(labelled.images, labels.astype(np.int32), names)
