"""Tiny ImageNet: the official archive -> 64x64 images, prepared."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from data_prep.archives import RemoteArchive, locate, open_zip, read_member, refused, zip_members
from data_prep.building import ImageBuilder, Prepared, prepare_labelled
from data_prep.images import open_image
from data_prep.progress import track
from tsar_jax.data import tiny_imagenet
from tsar_jax.data.types import LabelledImages
from tsar_jax.errors import UserError

# The largest member, words.txt, has 2.7 MB.
LARGEST_MEMBER = 1 << 22

ROOT = "tiny-imagenet-200/"
NAMES = ROOT + "wnids.txt"
ANNOTATIONS = ROOT + "val/val_annotations.txt"
# An image for training is in its class's folder; beside the images lie their bounding boxes.
TRAIN = re.compile(ROOT + r"train/([^/]+)/(?:images/[^/]+\.JPEG|\1_boxes\.txt)")
REMEDY = "download the official archive again"

# Size and digest as several users report them; the MD5 that others publish is of the same file.
REMOTE = RemoteArchive(
    url="https://cs231n.stanford.edu/tiny-imagenet-200.zip",
    size=248_100_043,
    sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
)


class TinyImagenetAt64(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Tiny ImageNet (Stanford CS231n), colour, 64x64; the official validation images as "test"."""

    VERSION = tfds.core.Version(tiny_imagenet.PREPARED.version)
    name = tiny_imagenet.PREPARED.folder


class Members(NamedTuple):
    """An archive, its path, and its files in the order of their sorted paths."""

    path: Path
    archive: zipfile.ZipFile
    files: Mapping[str, zipfile.ZipInfo]

    def lines(self, name: str) -> list[str]:
        """The lines of a text file, or UserError if there is none."""
        if name not in self.files:
            raise UserError(f"{self.path} has no member {name!r}: {REMEDY}")
        data = read_member(self.archive, self.files[name])
        return data.decode("ascii", "replace").splitlines()


def prepare_tiny_imagenet(archives: Path | None, out: Path, overwrite: bool = False) -> Prepared:
    """Prepares Tiny ImageNet in `<out>/tiny_imagenet_64/1.0.0`.

    Its archive lies in a folder or is downloaded; one of the same layout with fewer images will do.
    Raises UserError if it is missing, damaged or not Tiny ImageNet's, if a class has no images, or
    if `out` cannot be written.
    """

    def read() -> dict[str, LabelledImages]:
        path = locate(REMOTE, archives, out / "downloads" / "tiny_imagenet")
        return read_archive(path)

    return prepare_labelled(TinyImagenetAt64, read, out, overwrite)


def read_archive(path: Path) -> dict[str, LabelledImages]:
    """The splits "train" and "test", uint8 [images, 64, 64, 3], in the order of sorted paths.

    Raises UserError if a class has no images, an image no label, a label no image, or an image is
    anything but a 64x64 JPEG.
    """
    with open_zip(path) as archive:
        found = {member.filename: member for member in zip_members(archive, LARGEST_MEMBER)}
        members = Members(path, archive, found)
        names = class_names(members)
        classes = {"train": train_classes(members), "test": validation_classes(members)}
        labels = {split: _labels(path, split, its, names) for split, its in classes.items()}
        return {
            split: LabelledImages(_read_images(members, list(its), split), labels[split], names)
            for split, its in classes.items()
        }


def class_names(members: Members) -> tuple[str, ...]:
    """The WordNet numbers that wnids.txt lists, sorted."""
    names = members.lines(NAMES)
    for name in names:
        if not re.fullmatch(r"n\d{8}", name, re.ASCII):
            raise refused(members.path, NAMES, f"{name!r:.80} is not a WordNet number")
    if len(names) != tiny_imagenet.CLASSES or len(set(names)) != len(names):
        reason = f"it does not list {tiny_imagenet.CLASSES} different classes"
        raise refused(members.path, NAMES, reason)
    return tuple(sorted(names))


def train_classes(members: Members) -> dict[str, str]:
    """By path, the class of every image in the folder train/."""
    classes = {}
    for name in members.files:
        if name.startswith(ROOT + "train/"):
            match = TRAIN.fullmatch(name)
            if not match:
                place = f"{ROOT}train/<class>/images/<name>.JPEG"
                raise refused(members.path, name, f"it is not at {place}")
            if name.endswith(".JPEG"):
                classes[name] = match[1]
    return classes


def validation_classes(members: Members) -> dict[str, str]:
    """By path, the class that val_annotations.txt gives every image in the folder val/images/."""
    annotated: dict[str, str] = {}
    for number, line in enumerate(members.lines(ANNOTATIONS), 1):
        # After the file and its class come the corners of a bounding box.
        image, *rest = line.split("\t")
        if image in annotated or not rest:
            wrong = "names a file again" if image in annotated else "has no class"
            raise refused(members.path, ANNOTATIONS, f"line {number} {wrong}, {line!r:.80}")
        annotated[image] = rest[0]
    folder = ROOT + "val/images/"
    classes = {}
    for name in members.files:
        if name.startswith(ROOT + "val/") and name != ANNOTATIONS:
            image = name.removeprefix(folder)
            if image not in annotated:
                raise refused(members.path, name, "val_annotations.txt does not give its class")
            classes[name] = annotated.pop(image)
    if annotated:
        absent = folder + next(iter(annotated))
        raise refused(members.path, ANNOTATIONS, f"it gives a class to {absent!r:.80}, not there")
    return classes


def _labels(
    path: Path, split: str, classes: Mapping[str, str], names: tuple[str, ...]
) -> np.ndarray:
    """Classes by image -> labels int32 [images], at least one of each."""
    numbers = {name: label for label, name in enumerate(names)}
    for image, name in classes.items():
        if name not in numbers:
            raise refused(path, image, f"wnids.txt does not list its class, {name!r:.80}")
    present = set(classes.values())
    for name in names:
        if name not in present:
            raise UserError(f"class {name!r} of {path} has no {split} images: {REMEDY}")
    return np.array([numbers[name] for name in classes.values()], np.int32)


def _read_images(members: Members, names: list[str], split: str) -> np.ndarray:
    side = tiny_imagenet.SIDE
    images = np.empty((len(names), side, side, 3), np.uint8)
    for index, name in enumerate(track(names, len(names), f"Reading {split}")):
        images[index] = read_photograph(members, name)
    return images


def read_photograph(members: Members, name: str) -> np.ndarray:
    """One image, JPEG 64x64, in colour or grey -> RGB uint8 [64, 64, 3]."""
    side = tiny_imagenet.SIDE
    wrong = f"{members.path} cannot be used, its member {name!r}"
    with open_image(
        read_member(members.archive, members.files[name]), ("JPEG",), wrong, REMEDY
    ) as (image):
        if image.size != (side, side):
            width, height = image.size
            raise UserError(f"{wrong} is {width}x{height}, not {side}x{side}: {REMEDY}")
        return np.asarray(image.convert("RGB"))
