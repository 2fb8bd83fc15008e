"""Tiny ImageNet: the official archive -> 64x64 images, prepared."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from tsar_jax.data import tiny_imagenet
from tsar_jax.data.types import LabelledImages
from tsar_jax.errors import UserError

from .archives import RemoteArchive, locate
from .building import ImageBuilder, Prepared, prepare_labelled
from .images import open_image
from .progress import track
from .sources import Source, open_source

# The largest member, words.txt, has 2.7 MB.
LARGEST_MEMBER = 1 << 22

ROOT = "tiny-imagenet-200/"
NAMES = "wnids.txt"
ANNOTATIONS = "val/val_annotations.txt"
# An image for training is in its class's folder; beside the images lie their bounding boxes.
TRAIN = re.compile(r"train/([^/]+)/(?:(?:images/)?[^/]+\.JPEG|\1_boxes\.txt)")
# An image for validation may lie in its class's folder too, as many people sort them.
SORTED = re.compile(r"val/(n\d{8})/(?:images/)?[^/]+\.JPEG")
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


def prepare_tiny_imagenet(archives: Path | None, out: Path, overwrite: bool = False) -> Prepared:
    """Prepare Tiny ImageNet in `<out>/tiny_imagenet_64/1.0.0`.

    Its archive lies in a folder, packed or unpacked, or is downloaded; one of the same layout with
    fewer images will do, and one whose validation images are sorted into folders of their classes.
    Raises UserError if it is missing, damaged or not Tiny ImageNet's, if a class has no images, or
    if `out` cannot be written.
    """

    def read() -> dict[str, LabelledImages]:
        path = locate(
            REMOTE, archives, out / "downloads" / "tiny_imagenet", lambda f: bool(f.roots(NAMES))
        )
        return read_archive(path)

    return prepare_labelled(TinyImagenetAt64, read, out, overwrite)


def read_archive(path: Path) -> dict[str, LabelledImages]:
    """Return the splits "train" and "test", uint8 [images, 64, 64, 3], in order of sorted paths.

    Raises UserError if a class has no images, an image no label, a label no image, or an image is
    anything but a 64x64 JPEG.
    """
    with open_source(path, LARGEST_MEMBER) as whole:
        members = whole.below((whole.roots(NAMES) or [ROOT])[0])
        names = class_names(members)
        classes = {"train": train_classes(members), "test": validation_classes(members)}
        labels = {split: _labels(members, split, its, names) for split, its in classes.items()}
        return {
            split: LabelledImages(_read_images(members, list(its), split), labels[split], names)
            for split, its in classes.items()
        }


def read_lines(members: Source, name: str) -> list[str]:
    """Return the lines of a text file but blank ones. Raises UserError if there is no such file."""
    if name not in members.paths:
        raise UserError(
            f"{members.where} has no member {(members.root or ROOT) + name!r}, but "
            f"{members.found()}: {REMEDY}"
        )
    text = members.read(name, LARGEST_MEMBER).decode("ascii", "replace")
    return [line for line in text.splitlines() if line.strip()]


def class_names(members: Source) -> tuple[str, ...]:
    """Return the WordNet numbers that wnids.txt lists, sorted."""
    names = [line.strip() for line in read_lines(members, NAMES)]
    for name in names:
        if not re.fullmatch(r"n\d{8}", name, re.ASCII):
            raise members.refused(NAMES, f"{name!r:.80} is not a WordNet number")
    if len(names) != tiny_imagenet.CLASSES or len(set(names)) != len(names):
        reason = f"it does not list {tiny_imagenet.CLASSES} different classes"
        raise members.refused(NAMES, reason)
    return tuple(sorted(names))


def train_classes(members: Source) -> dict[str, str]:
    """Return the class of every image in the folder train/, by path."""
    classes = {}
    for name in members.paths:
        if name.startswith("train/"):
            match = TRAIN.fullmatch(name)
            if not match:
                place = f"{ROOT}train/<class>/images/<name>.JPEG"
                raise members.refused(name, f"it is not at {place}")
            if name.endswith(".JPEG"):
                classes[name] = match[1]
    return classes


def validation_classes(members: Source) -> dict[str, str]:
    """Return the class of every image in the folder val/, by path, in the order of file names.

    It is that of the folder val/<class>/ which an image lies in, or else the one that
    val_annotations.txt gives it.
    """
    names = [name for name in members.paths if name.startswith("val/") and name != ANNOTATIONS]
    in_folders = {name: match[1] for name in names if (match := SORTED.fullmatch(name))}
    if len(in_folders) < len(names) or not names:
        in_folders |= annotated_classes(members, [name for name in names if name not in in_folders])
    return dict(sorted(in_folders.items(), key=lambda item: (item[0].rsplit("/", 1)[-1], item[0])))


def annotated_classes(members: Source, names: list[str]) -> dict[str, str]:
    """Return the class that val_annotations.txt gives each of these images, by path."""
    annotated: dict[str, str] = {}
    for number, line in enumerate(read_lines(members, ANNOTATIONS), 1):
        # After the file and its class come the corners of a bounding box.
        image, *rest = line.split("\t")
        if image in annotated or not rest:
            wrong = "names a file again" if image in annotated else "has no class"
            raise members.refused(ANNOTATIONS, f"line {number} {wrong}, {line!r:.80}")
        annotated[image] = rest[0].strip()
    folder = "val/images/"
    classes = {}
    for name in names:
        image = name.removeprefix(folder)
        if image not in annotated:
            raise members.refused(name, "val_annotations.txt does not give its class")
        classes[name] = annotated.pop(image)
    if annotated:
        absent = folder + next(iter(annotated))
        raise members.refused(ANNOTATIONS, f"it gives a class to {absent!r:.80}, not there")
    return classes


def _labels(
    members: Source, split: str, classes: Mapping[str, str], names: tuple[str, ...]
) -> np.ndarray:
    """Return labels int32 [images] from the images' classes, each of which has an image."""
    numbers = {name: label for label, name in enumerate(names)}
    for image, name in classes.items():
        if name not in numbers:
            raise members.refused(image, f"wnids.txt does not list its class, {name!r:.80}")
    present = set(classes.values())
    for name in names:
        if name not in present:
            raise UserError(f"class {name!r} of {members.where} has no {split} images: {REMEDY}")
    return np.array([numbers[name] for name in classes.values()], np.int32)


def _read_images(members: Source, names: list[str], split: str) -> np.ndarray:
    side = tiny_imagenet.SIDE
    images = np.empty((len(names), side, side, 3), np.uint8)
    for index, name in enumerate(track(names, len(names), f"Reading {split}")):
        images[index] = read_photograph(members, name)
    return images


def read_photograph(members: Source, name: str) -> np.ndarray:
    """Return one image, JPEG 64x64, in colour or grey, as RGB uint8 [64, 64, 3]."""
    side = tiny_imagenet.SIDE
    wrong = f"{members.where} cannot be used, its member {members.root + name!r}"
    with open_image(members.read(name, LARGEST_MEMBER), ("JPEG",), wrong, REMEDY) as image:
        if image.size != (side, side):
            width, height = image.size
            raise UserError(f"{wrong} is {width}x{height}, not {side}x{side}: {REMEDY}")
        return np.asarray(image.convert("RGB"))
