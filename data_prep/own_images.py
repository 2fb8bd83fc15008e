"""A user's own images: a folder of them for every class -> images of one size, prepared.

Whatever lies at any depth in a class's folder is of that class. The folders may lie in train/ and
test/; archives in the folder count as folders of their names, so that train.zip and test.zip, or a
zip for every class, will do.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from tsar_jax.data import own
from tsar_jax.data.labelled import TEST_EVERY, class_counts
from tsar_jax.data.prepared import read_labelled
from tsar_jax.data.registry import ALIASES, LABELLED_LOADERS, LOADERS
from tsar_jax.data.types import LabelledImages
from tsar_jax.errors import UserError

from .building import ImageBuilder, Prepared, prepare_labelled
from .images import open_image
from .progress import track
from .sources import Source, check_class_folder, folder_source, kind_of, open_source

LARGEST_FILE = 1 << 26
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz")
TRAINING = {"train", "training"}
TESTING = {"test", "testing", "val", "valid", "validation"}
EXPECTED = "a folder of images for every class, at least two, or such folders in train/ and test/"
SHOWN = 5
STRIP = 64
"""Number of rows of a transparent image that are laid on white at a time."""


class File(NamedTuple):
    """An image: its path below the folder of its split or of all classes, and where to read it."""

    path: str
    source: Source
    name: str


Classes = dict[str, list[File]]


def prepare_images(
    archives: Path, name: str, size: int, out: Path, overwrite: bool = False
) -> tuple[Prepared, str]:
    """Prepare a folder's or an archive's images in `<out>/images_<name>/1.0.0`; describe them.

    They are grey where all of them are, otherwise RGB, resized to size x size by Pillow's bilinear
    filter, whatever their proportions. Without test/ every fifth image of a class is for testing,
    at least one. Raises UserError where the name, the images or `out` cannot be used.
    """
    check_name(name)
    about = own.about(name)
    title = f"{name} (Images of the user's own), {size}x{size} by bilinear resampling."
    attributes = {
        "VERSION": tfds.core.Version(about.version),
        "name": about.folder,
        "__doc__": title,
        "__module__": __name__,
    }
    builder = type("OwnImages", (ImageBuilder,), attributes, skip_registration=True)

    def read() -> dict[str, LabelledImages]:
        with contextlib.ExitStack() as stack:
            return read_splits(gather(archives, stack), archives, size)

    prepared = prepare_labelled(builder, read, out, overwrite)
    splits = read_labelled(prepared.folder, f"run `{about.command} --overwrite`")
    found = splits["train"].images.shape[1]
    if found != size:
        raise UserError(
            f"{name} is prepared in {prepared.folder} already, at {found}x{found}: choose another "
            "--name, or --overwrite to replace it"
        )
    return prepared, describe(splits)


def check_name(name: str) -> None:
    """Raise UserError for an invalid name, or that of another data set."""
    if not own.NAME.fullmatch(name) or len(name) > 60:
        raise UserError(
            f"--name {name!r:.80} cannot be the name of a data set: write small letters, digits "
            "and single underscores, a letter first"
        )
    if name in (*LOADERS, *LABELLED_LOADERS, *ALIASES, "all"):
        raise UserError(f"--name {name} is the name of a data set that is there: choose another")


def gather(archives: Path, stack: contextlib.ExitStack) -> list[File]:
    """Return all files, those in archives as if they lay in a folder of the archive's name."""
    if not archives.exists():
        raise UserError(f"the archives folder {archives} does not exist: name one that does")
    if archives.is_file():
        source = stack.enter_context(open_source(archives, LARGEST_FILE))
        return [File(name, source, name) for name in source.paths]
    folder = folder_source(archives)
    files = []
    for name, path in folder.paths.items():
        if name.lower().endswith(ARCHIVES) and kind_of(Path(path)):
            source = stack.enter_context(open_source(Path(path), LARGEST_FILE))
            top = name.removesuffix(".gz").removesuffix(".bz2").removesuffix(".xz").rsplit(".", 1)
            files += [File(f"{top[0]}/{inner}", source, inner) for inner in source.paths]
        else:
            files.append(File(name, folder, name))
    return files


def read_splits(files: list[File], archives: Path, size: int) -> dict[str, LabelledImages]:
    """Return the splits "train" and "test" of the images among files, class after class."""
    images = [file for file in files if file.path.lower().endswith(SUFFIXES)]
    images = _without_top(images)
    tops = {file.path.split("/")[0] for file in images}
    parts = {top: top.lower() for top in tops}
    if set(parts.values()) <= TRAINING | TESTING and set(parts.values()) & TRAINING:
        halves: dict[str, list[File]] = {"train": [], "test": []}
        for file in images:
            top, _, rest = file.path.partition("/")
            split = "train" if top.lower() in TRAINING else "test"
            halves[split].append(file._replace(path=rest))
        classes = {split: _classes(_without_top(its), archives) for split, its in halves.items()}
        if classes["train"].keys() != classes["test"].keys():
            alone = min(classes["train"].keys() ^ classes["test"].keys())
            raise UserError(
                f"class {alone!r} of {archives} has images for training or for testing alone: put "
                "the same classes into both folders, or leave these out to have them split"
            )
    else:
        classes = _cut(_classes(images, archives), archives)
    return read_images(classes, size)


def _without_top(files: list[File]) -> list[File]:
    """Return the files without the folders at the top that all of them lie in."""
    while files and len({file.path.split("/")[0] for file in files}) == 1:
        if min(file.path.count("/") for file in files) < 2:
            break
        files = [file._replace(path=file.path.partition("/")[2]) for file in files]
    return files


def _classes(files: list[File], archives: Path) -> Classes:
    """Return the files by the folder that they lie in, sorted."""
    classes: Classes = {}
    for file in sorted(files):
        name, _, rest = file.path.partition("/")
        if not rest:
            raise UserError(
                f"{archives} has the image {file.path!r:.80} in no class's folder: what is "
                f"expected is {EXPECTED}"
            )
        if name not in classes:
            check_class_folder(archives, name)
        classes.setdefault(name, []).append(file)
    if len(classes) < 2:
        raise UserError(
            f"{archives} has {len(files)} images in {len(classes)} classes: what is expected is "
            f"{EXPECTED}"
        )
    return dict(sorted(classes.items()))


def _cut(classes: Classes, archives: Path) -> dict[str, Classes]:
    """Return two splits: every fifth image of a class, or the last of fewer, is for testing."""
    splits: dict[str, Classes] = {"train": {}, "test": {}}
    for name, files in classes.items():
        if len(files) < 2:
            raise UserError(
                f"class {name!r:.80} of {archives} has one image, but one to learn and one to be "
                "tested on are wanted: add another, or remove the class"
            )
        every = min(TEST_EVERY, len(files))
        splits["test"][name] = files[every - 1 :: every]
        splits["train"][name] = [file for file in files if file not in splits["test"][name]]
    return splits


def read_images(splits: dict[str, Classes], size: int) -> dict[str, LabelledImages]:
    """Return the images of all splits: grey [images, size, size] if all are, else RGB."""
    arrays, grey = {}, True
    for split, classes in splits.items():
        files = [file for its in classes.values() for file in its]
        array = np.empty((len(files), size, size, 3), np.uint8)
        for index, file in enumerate(track(files, len(files), f"Reading {split}")):
            array[index] = read_image(file, size)
        grey = grey and all(np.array_equal(array[..., 0], array[..., c]) for c in (1, 2))
        arrays[split] = array
    return {
        split: LabelledImages(
            np.ascontiguousarray(arrays[split][..., 0]) if grey else arrays[split],
            np.repeat(np.arange(len(its), dtype=np.int32), [len(files) for files in its.values()]),
            tuple(its),
        )
        for split, its in splits.items()
    }


def read_image(file: File, size: int) -> np.ndarray:
    """Return one image as RGB uint8, upright as its camera was held, transparent pixels white."""
    wrong = f"{file.source.where} cannot be used, its image {file.name!r}"
    remedy = "put a whole copy of that image there, a smaller one if it is large, or remove it"
    data = file.source.read(file.name, LARGEST_FILE)
    with open_image(data, FORMATS, wrong, remedy) as image:
        small = _on_white(image).resize((size, size), Image.Resampling.BILINEAR)
        small.getexif()[0x0112] = image.getexif().get(0x0112, 1)
        return np.asarray(ImageOps.exif_transpose(small))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    # In strips, for a copy of the whole image with its alpha channel takes four bytes a pixel.
    for top in range(0, image.height, STRIP):
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
        if strip.mode != "RGBA":
            strip = strip.convert("RGBA")
        white.paste(strip, (0, top), mask=strip)
    return white


def describe(splits: dict[str, LabelledImages]) -> str:
    """Return sentences on how many images of which classes there are, and how they are split."""
    train, test = (class_counts(splits[split]) for split in ("train", "test"))
    names, counts = splits["train"].names, train + test
    images = splits["train"].images
    kind = f"{images.shape[1]}x{images.shape[2]}, {'colour' if images.ndim == 4 else 'grey'}"
    text = (
        f"{len(names)} classes, {train.sum()} images for training and {test.sum()} for testing, "
        f"{kind}"
    )
    if (train == train[0]).all() and (test == test[0]).all():
        return f"{text}: {train[0]} and {test[0]} of each class."
    order = np.argsort(counts, kind="stable")
    shown = [f"{names[i]} {train[i]} + {test[i]}" for i in order[:SHOWN]]
    more = f" and {len(names) - SHOWN} more classes" if len(names) > SHOWN else ""
    return (
        f"{text}. The classes differ in size: {', '.join(shown)}{more} (training + testing). Where "
        f"classes must be alike, as in a transfer, the first {train.min()} + {test.min()} of each "
        "are taken; streams learn all."
    )
