"""mini-ImageNet: a zip archive or a folder of the user's own -> images of two sizes, prepared."""

import csv
import functools
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from tsar_jax.data import mini_imagenet
from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError, quoted

from .building import ImageBuilder, Prepared, prepare
from .images import open_image, resize_colour
from .progress import track
from .sources import Source, check_class_folder, locate_source, open_source

# Largest size in bytes of a file, which is read into memory as a whole.
LARGEST_FILE = 1 << 25

SIDES = (mini_imagenet.SIDE, mini_imagenet.LABELLED_SIDE)

PLAIN_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
TAKE_PUBLISHED = "take the csv files of the Ravi & Larochelle split as they are published"


class Form(NamedTuple):
    """Words for errors in one of the two forms in which mini-ImageNet assigns images to classes.

    place: place of a split. holds: verb for its classes. remedy: what to do about wrong ones.
    """

    place: str
    holds: str
    remedy: str


CSV_FILES = Form("{}.csv", "lists", TAKE_PUBLISHED)
CLASS_FOLDERS = Form(
    "{}/",
    "holds",
    "put a folder for each class of the Ravi & Larochelle split into train/, val/ and test/",
)

SPLITS = ("train", "val", "test")
IMAGE = re.compile(r"(train|val|test)/(?:images/)?([^/]+)/(?:images/)?[^/]+\.(?:jpe?g|png)", re.I)

# By class, sorted, the paths of its images in the order of the csv file or, without one, sorted.
Listing = dict[str, list[str]]


class MiniImagenetAt28(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """mini-ImageNet (Ravi & Larochelle, 2017), colour, 28x28 by bilinear resampling."""

    VERSION = tfds.core.Version(mini_imagenet.PREPARED.version)
    name = mini_imagenet.PREPARED.folder


class MiniImagenetAt32(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """mini-ImageNet (Ravi & Larochelle, 2017), colour, 32x32 by bilinear resampling."""

    VERSION = tfds.core.Version(mini_imagenet.PREPARED_AT_32.version)
    name = mini_imagenet.PREPARED_AT_32.folder


def prepare_mini_imagenet(
    archives: Path | None, out: Path, overwrite: bool = False
) -> tuple[Prepared, Prepared]:
    """Prepare mini-ImageNet in two sizes from files in the folder `archives`.

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
def open_files(archives: Path | None, out: Path) -> Iterator[Source]:
    """Open the data in the folder's mini-imagenet.zip or, without it, in the folder itself."""
    how = f"{mini_imagenet.OBTAIN} and run `{mini_imagenet.PREPARED.command} --out {quoted(out)}`"
    if archives is None or not archives.exists():
        absent = "no folder is named" if archives is None else f"it is not in {archives}"
        raise UserError(f"mini-ImageNet cannot be prepared, {absent}: {how}")
    missing = f"mini-ImageNet cannot be prepared, {{archives}} has it not, but {{found}}: {how}"
    path = locate_source(archives, mini_imagenet.ARCHIVE, _is_there, missing)
    with open_source(path, LARGEST_FILE) as source:
        yield source.below(_root(source))


def _is_there(folder: Source) -> bool:
    return bool(folder.roots("train.csv") or _split_roots(folder))


def _split_roots(source: Source) -> list[str]:
    """Return the folders that hold train/, val/ and test/ with a folder for every class."""
    holding = [set(source.roots(split)) for split in SPLITS]
    roots = sorted(set.intersection(*holding), key=len)
    return [root for root in roots if any(map(IMAGE.fullmatch, source.below(root).paths))]


def _root(source: Source) -> str:
    """Return the folder that holds train.csv or train/: "" or, for instance, "mini-imagenet/"."""
    found = source.roots("train.csv")
    if not found and (sorted_roots := _split_roots(source)):
        return sorted_roots[0]
    if len(found) != 1:
        raise UserError(
            f"{source.where} has {len(found)} files named train.csv, not one, but "
            f"{source.found()}: put train.csv, val.csv, test.csv and the folder images/ into it "
            "once, side by side, or folders train/, val/ and test/ with a folder for every class"
        )
    return found[0]


def read_files(files: Source, classes: Mapping[str, int]) -> dict[int, dict[str, ImageSet]]:
    """Return the splits by side, 28 and 32: uint8 [classes[split], per_class, side, side, 3].

    Classes are in the order of their names, a class's images in that of the csv file. Raises
    UserError unless each split has as many classes as given, all classes have the same even number
    of images, and every image listed is there, listed once and readable.
    """
    if any(f"{split}.csv" in files.paths for split in classes):
        listings = {split: read_listing(files, split) for split in classes}
        check_classes(files.where, listings, classes, CSV_FILES)
        listings = find_images(files, listings)
    else:
        listings = {split: list_folders(files, split) for split in classes}
        check_classes(files.where, listings, classes, CLASS_FOLDERS)
    both = {split: _read_images(files, split, listing) for split, listing in listings.items()}
    return {side: {split: sized[side] for split, sized in both.items()} for side in SIDES}


def list_folders(files: Source, split: str) -> Listing:
    """Return the images in the split's folder, which has one folder for every class."""
    listing: Listing = {}
    for name in files.paths:
        if (match := IMAGE.fullmatch(name)) and match[1] == split:
            if match[2] not in listing:
                check_class_folder(files.where, match[2])
            listing.setdefault(match[2], []).append(name)
    return dict(sorted(listing.items()))


def read_listing(files: Source, split: str) -> Listing:
    """Return the images that `<split>.csv` lists, one in each row of filename and label."""
    name = f"{split}.csv"
    if name not in files.paths:
        raise UserError(f"{files.where} has no {name}, but {files.found()}: {TAKE_PUBLISHED}")
    wrong = f"{name} of {files.where}"
    try:
        text = files.read(name, LARGEST_FILE).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text), strict=True, skipinitialspace=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{wrong} is not a csv file ({error}): {TAKE_PUBLISHED}") from error
    # With their numbers, for blank ones are left out.
    numbered = [(number, [cell.strip() for cell in row]) for number, row in enumerate(rows, 1)]
    numbered = [(number, row) for number, row in numbered if any(row)]
    if not numbered or [cell.lower() for cell in numbered[0][1]] != ["filename", "label"]:
        raise UserError(f"{wrong} does not begin with filename,label: {TAKE_PUBLISHED}")
    listing: Listing = {}
    for number, row in numbered[1:]:
        if len(row) != 2 or not all(map(PLAIN_NAME.fullmatch, row)):
            raise UserError(
                f"row {number} of {wrong} is not a plain file name and a class, {row!r:.200}: "
                f"{TAKE_PUBLISHED}"
            )
        listing.setdefault(row[1], []).append(row[0])
    return dict(sorted(listing.items()))


def check_classes(
    where: Path, listings: Mapping[str, Listing], classes: Mapping[str, int], form: Form
) -> None:
    """Raise UserError unless the classes are as many as expected and alike in size."""
    splits: dict[str, str] = {}
    each = len(next(iter(next(iter(listings.values())).values()), []))
    for split, listing in listings.items():
        if len(listing) != classes[split]:
            raise UserError(
                f"{form.place.format(split)} of {where} {form.holds} {len(listing)} classes, not "
                f"{classes[split]}: {form.remedy}"
            )
        for name, images in listing.items():
            if name in splits:
                raise UserError(
                    f"{where} {form.holds} class {name!r} in both "
                    f"{form.place.format(splits[name])} and {form.place.format(split)}: "
                    f"{form.remedy}"
                )
            splits[name] = split
            if len(images) != each or each % 2:
                raise UserError(
                    f"{form.place.format(split)} of {where} {form.holds} {len(images)} images of "
                    f"class {name!r}: every class must have the same even number, 600 in the full "
                    "set, so add what is missing or leave as many of every class"
                )


def find_images(files: Source, listings: Mapping[str, Listing]) -> dict[str, Listing]:
    """Return the paths of the images listed: in images/, or in folders of their classes there.

    Raises UserError if an image is listed twice or missing.
    """
    seen: set[str] = set()
    found: dict[str, Listing] = {}
    for split, listing in listings.items():
        found[split] = {}
        for label, image in ((label, image) for label, its in listing.items() for image in its):
            if image in seen:
                raise UserError(
                    f"{split}.csv of {files.where} lists {image!r}, which is listed already: "
                    f"{TAKE_PUBLISHED}"
                )
            seen.add(image)
            places = (f"images/{image}", f"images/{label}/{image}", f"{split}/{label}/{image}")
            there = [place for place in (*places, f"{label}/{image}") if place in files.paths]
            if not there:
                raise UserError(
                    f"{files.where} has no images/{image}, which {split}.csv lists: put it there, "
                    "or leave as many images of every class out of the csv files"
                )
            found[split].setdefault(label, []).append(there[0])
    return found


def _read_images(files: Source, split: str, listing: Listing) -> dict[int, ImageSet]:
    names = [name for images in listing.values() for name in images]
    images = {side: np.empty((len(names), side, side, 3), np.uint8) for side in SIDES}
    for index, name in enumerate(track(names, len(names), f"Reading {split}")):
        for side, image in read_photograph(files, name).items():
            images[side][index] = image
    return {
        side: ImageSet(sized.reshape(len(listing), -1, side, side, 3), tuple(listing))
        for side, sized in images.items()
    }


def read_photograph(files: Source, name: str) -> dict[int, np.ndarray]:
    """Return one image, JPEG or PNG, by side: RGB uint8 [side, side, 3].

    It is decoded once for both sides.
    """
    wrong = f"{name} of {files.where}"
    remedy = "put a whole copy of that image there"
    # ImageNet has PNG images that are named as if they were JPEG.
    with open_image(files.read(name, LARGEST_FILE), ("JPEG", "PNG"), wrong, remedy) as image:
        return {side: resize_colour(image, side) for side in SIDES}
