"""mini-ImageNet: a zip archive or a folder of the user's own -> images of two sizes, prepared."""

import csv
import functools
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from data_prep.archives import open_zip, read_member, zip_members
from data_prep.building import ImageBuilder, Prepared, prepare
from data_prep.images import open_image, resize_colour
from data_prep.progress import track
from tsar_jax.data import mini_imagenet
from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError

# What is read into memory at once: a file of 32 MiB, an image of 300 MB.
LARGEST_FILE = 1 << 25
LARGEST_SIDE = 10_000

SIDES = (mini_imagenet.SIDE, mini_imagenet.LABELLED_SIDE)

PLAIN_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
TAKE_PUBLISHED = "take the csv files of the Ravi & Larochelle split as they are published"

# By class, sorted, the file names of its images in the order of the csv file.
Listing = dict[str, list[str]]


class MiniImagenetAt28(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """mini-ImageNet (Ravi & Larochelle, 2017), colour, 28x28 by bilinear resampling."""

    VERSION = tfds.core.Version(mini_imagenet.PREPARED.version)
    name = mini_imagenet.PREPARED.folder


class MiniImagenetAt32(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """mini-ImageNet (Ravi & Larochelle, 2017), colour, 32x32 by bilinear resampling."""

    VERSION = tfds.core.Version(mini_imagenet.PREPARED_AT_32.version)
    name = mini_imagenet.PREPARED_AT_32.folder


class Files(NamedTuple):
    """What the user brought: where, and how to ask for a file by a path such as "train.csv"."""

    where: Path
    has: Callable[[str], bool]
    read: Callable[[str], bytes]


def prepare_mini_imagenet(
    archives: Path | None, out: Path, overwrite: bool = False
) -> tuple[Prepared, Prepared]:
    """Prepares mini-ImageNet in two sizes from files in the folder `archives`.

    In `<out>/mini_imagenet_28/1.0.0` and `<out>/mini_imagenet_32/1.0.0`: images are made RGB and
    then resized by Pillow's bilinear filter, as torchvision's Resize does by default. Raises
    UserError if the files are missing or not mini-ImageNet's, or if `out` cannot be written.
    """

    @functools.cache
    def read() -> dict[int, dict[str, ImageSet]]:
        with open_files(archives, out) as files:
            return read_files(files, mini_imagenet.CLASSES)

    return (
        prepare(MiniImagenetAt28, lambda: read()[mini_imagenet.SIDE], out, overwrite),
        prepare(MiniImagenetAt32, lambda: read()[mini_imagenet.LABELLED_SIDE], out, overwrite),
    )


@contextmanager
def open_files(archives: Path | None, out: Path) -> Iterator[Files]:
    """The files in the folder's mini-imagenet.zip or, without it, in the folder itself."""
    if archives is not None and (path := archives / mini_imagenet.ARCHIVE).is_file():
        with open_zip(path) as archive:
            members = {member.filename: member for member in zip_members(archive, LARGEST_FILE)}
            root = _root(path, members)
            yield Files(
                path,
                has=lambda name: root + name in members,
                read=lambda name: read_member(archive, members[root + name]),
            )
    elif archives is not None and (archives / "train.csv").is_file():
        yield Files(
            archives,
            has=lambda name: (archives / name).is_file(),
            read=lambda name: _read_file(archives / name),
        )
    else:
        absent = "no folder is named" if archives is None else f"it is not in {archives}"
        raise UserError(
            f"mini-ImageNet cannot be prepared, {absent}: {mini_imagenet.OBTAIN} and run "
            f"`{mini_imagenet.PREPARED.command} --out {out}`"
        )


def _root(path: Path, members: Mapping[str, object]) -> str:
    """The folder of the archive that holds train.csv: "" or, for instance, "mini-imagenet/"."""
    found = [name for name in members if name.rsplit("/", 1)[-1] == "train.csv"]
    if len(found) != 1:
        raise UserError(
            f"{path} has {len(found)} files named train.csv, not one: put train.csv, val.csv, "
            "test.csv and the folder images/ into it once, side by side"
        )
    return found[0].removesuffix("train.csv")


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error}): make it readable") from error
    if len(data) > LARGEST_FILE:
        raise UserError(f"{path} holds more than {LARGEST_FILE} bytes: put the right file there")
    return data


def read_files(files: Files, classes: Mapping[str, int]) -> dict[int, dict[str, ImageSet]]:
    """By side, 28 and 32, the splits: uint8 [classes[split], images_per_class, side, side, 3].

    Classes are in the order of their names, a class's images in that of the csv file. Raises
    UserError unless each split has as many classes as given, all classes have the same even number
    of images, and every image listed is there, listed once and readable.
    """
    listings = {split: read_listing(files, split) for split in classes}
    check_classes(files.where, listings, classes)
    check_images(files, listings)
    both = {split: _read_images(files, split, listing) for split, listing in listings.items()}
    return {side: {split: sized[side] for split, sized in both.items()} for side in SIDES}


def read_listing(files: Files, split: str) -> Listing:
    """The images that `<split>.csv` lists, one in each row of filename and label."""
    name = f"{split}.csv"
    if not files.has(name):
        raise UserError(f"{files.where} has no {name}: {TAKE_PUBLISHED}")
    wrong = f"{name} of {files.where}"
    try:
        rows = list(csv.reader(io.StringIO(files.read(name).decode("utf-8-sig")), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{wrong} is not a csv file ({error}): {TAKE_PUBLISHED}") from error
    if rows[:1] != [["filename", "label"]]:
        raise UserError(f"{wrong} does not begin with filename,label: {TAKE_PUBLISHED}")
    listing: Listing = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not all(map(PLAIN_NAME.fullmatch, row)):
            raise UserError(
                f"row {number} of {wrong} is not a plain file name and a class, {row!r:.200}: "
                f"{TAKE_PUBLISHED}"
            )
        listing.setdefault(row[1], []).append(row[0])
    return dict(sorted(listing.items()))


def check_classes(where: Path, listings: Mapping[str, Listing], classes: Mapping[str, int]) -> None:
    """Raises UserError unless the classes are as many as expected and alike in size."""
    splits: dict[str, str] = {}
    each = len(next(iter(next(iter(listings.values())).values()), []))
    for split, listing in listings.items():
        if len(listing) != classes[split]:
            raise UserError(
                f"{split}.csv of {where} lists {len(listing)} classes, not {classes[split]}: "
                f"{TAKE_PUBLISHED}"
            )
        for name, images in listing.items():
            if name in splits:
                raise UserError(
                    f"{where} lists class {name!r} in both {splits[name]}.csv and {split}.csv: "
                    f"{TAKE_PUBLISHED}"
                )
            splits[name] = split
            if len(images) != each or each % 2:
                raise UserError(
                    f"{split}.csv of {where} lists {len(images)} images of class {name!r}: every "
                    "class must have the same even number, 600 in the full set"
                )


def check_images(files: Files, listings: Mapping[str, Listing]) -> None:
    """Raises UserError if an image is listed twice or missing."""
    seen: set[str] = set()
    for split, listing in listings.items():
        for image in (image for images in listing.values() for image in images):
            if image in seen:
                raise UserError(
                    f"{split}.csv of {files.where} lists {image!r}, which is listed already: "
                    f"{TAKE_PUBLISHED}"
                )
            seen.add(image)
            if not files.has(f"images/{image}"):
                raise UserError(
                    f"{files.where} has no images/{image}, which {split}.csv lists: put it there, "
                    "or leave as many images of every class out of the csv files"
                )


def _read_images(files: Files, split: str, listing: Listing) -> dict[int, ImageSet]:
    names = [name for images in listing.values() for name in images]
    images = {side: np.empty((len(names), side, side, 3), np.uint8) for side in SIDES}
    for index, name in enumerate(track(names, len(names), f"Reading {split}")):
        for side, image in read_photograph(files, name).items():
            images[side][index] = image
    return {
        side: ImageSet(sized.reshape(len(listing), -1, side, side, 3), tuple(listing))
        for side, sized in images.items()
    }


def read_photograph(files: Files, name: str) -> dict[int, np.ndarray]:
    """One image of the folder images/, JPEG or PNG -> by side, RGB uint8 [side, side, 3].

    It is decoded once for both sides.
    """
    wrong = f"images/{name} of {files.where}"
    remedy = "put a whole copy of that image there"
    # ImageNet has PNG images that are named as if they were JPEG.
    with open_image(files.read(f"images/{name}"), ("JPEG", "PNG"), wrong, remedy) as image:
        if max(image.size) > LARGEST_SIDE:
            width, height = image.size
            raise UserError(f"{wrong} is {width}x{height}, too large: {remedy}")
        return {side: resize_colour(image, side) for side in SIDES}
