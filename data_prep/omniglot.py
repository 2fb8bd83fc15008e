"""Omniglot: the two official archives -> 28x28 images, prepared or packaged."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tsar_jax.data import omniglot
from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError

from .archives import RemoteArchive, locate
from .building import ImageBuilder, Prepared, prepare
from .images import open_image
from .packaging import write_packaged_file
from .progress import track
from .sources import Source, open_source

ORIGINAL_SIDE = 105
# The largest drawing has 522 bytes; a member that holds far more is not a drawing.
LARGEST_MEMBER = 1 << 16

# Sizes and digests as published with tensorflow-datasets.
REMOTE = {
    "background": RemoteArchive(
        url="https://github.com/brendenlake/omniglot/raw/master/python/images_background.zip",
        size=9_464_212,
        sha256="ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    ),
    "evaluation": RemoteArchive(
        url="https://github.com/brendenlake/omniglot/raw/master/python/images_evaluation.zip",
        size=6_462_886,
        sha256="1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
    ),
}


class Omniglot28(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Omniglot (Lake et al., 2015), grey, 28x28 by Lanczos resampling. MIT licence."""

    VERSION = tfds.core.Version(omniglot.PREPARED.version)
    name = omniglot.PREPARED.folder


def prepare_omniglot(archives: Path | None, out: Path, overwrite: bool = False) -> Prepared:
    """Prepare Omniglot in `<out>/omniglot28/1.0.0` from two archives in a folder, or downloaded.

    Raises UserError if an archive is missing, damaged or not Omniglot's, or if `out` cannot be
    written.
    """
    downloads = out / "downloads" / "omniglot"
    return prepare(Omniglot28, lambda: read_splits(archives, downloads), out, overwrite)


def read_splits(archives: Path | None, downloads: Path) -> dict[str, ImageSet]:
    """Return both splits, from `archives`, or downloaded to `downloads` if it is None."""
    paths = {
        split: locate(remote, archives, downloads, lambda folder, split=split: _has(folder, split))  # type: ignore[misc]
        for split, remote in REMOTE.items()
    }
    return {split: read_archive(path, split) for split, path in paths.items()}


def _has(folder: Source, split: str) -> bool:
    """Return whether a folder has the drawings of a split in a folder images_<split>."""
    return bool(folder.roots(f"images_{split}"))


def read_archive(path: Path, split: str) -> ImageSet:
    """Return a split's images, uint8 [classes, 20, 28, 28], in the order of their sorted paths.

    Raises UserError if a file is anything but a 105x105 PNG drawing in its place, or if the classes
    or the drawings of one are too many or too few.
    """
    with open_source(path, LARGEST_MEMBER) as whole:
        roots = whole.roots(f"images_{split}")
        drawings = whole.below(f"{roots[0]}images_{split}/" if roots else _common_root(whole))
        names = class_names(path, split, drawings.paths)
        images = [
            read_drawing(drawings, name)
            for name in track(drawings.paths, len(drawings.paths), f"Reading {path.name}")
        ]
    shape = (len(names), omniglot.IMAGES_PER_CLASS, omniglot.SIDE, omniglot.SIDE)
    return ImageSet(np.stack(images).reshape(shape), names)


def _common_root(source: Source) -> str:
    """Return the folder that all alphabets lie in, whatever its name."""
    parts = [name.split("/")[:-3] for name in source.paths]
    roots = {"".join(f"{part}/" for part in above) for above in parts}
    return roots.pop() if len(roots) == 1 else ""


def class_names(path: Path, split: str, members: Iterable[str]) -> tuple[str, ...]:
    """Return the names of a split's classes, "Alphabet/character01", from its drawings' paths."""
    pattern = re.compile(r"([^/]+/character\d+)/[^/]+\.png")
    counts: dict[str, int] = {}
    for member in members:
        match = pattern.fullmatch(member)
        if not match:
            raise UserError(
                f"{path} cannot be used, its member {member!r:.200} is not at "
                f"images_{split}/<alphabet>/character<number>/<name>.png: download the official "
                "archive again"
            )
        counts[match[1]] = counts.get(match[1], 0) + 1
    expected = omniglot.SPLITS[split].classes
    if len(counts) != expected:
        raise UserError(
            f"{path} has {len(counts)} classes, not {expected}: download the official archive again"
        )
    for name, count in counts.items():
        if count != omniglot.IMAGES_PER_CLASS:
            raise UserError(
                f"class {name!r} of {path} has {count} drawings, not {omniglot.IMAGES_PER_CLASS}: "
                "download the official archive again"
            )
    return tuple(counts)


def read_drawing(drawings: Source, name: str) -> np.ndarray:
    """Return one drawing, PNG 105x105, as grey uint8 [28, 28]."""
    wrong = f"{drawings.where} cannot be used, its member {drawings.root + name!r}"
    remedy = "download the official archive again"
    with open_image(drawings.read(name, LARGEST_MEMBER), ("PNG",), wrong, remedy) as image:
        if image.size != (ORIGINAL_SIDE, ORIGINAL_SIDE):
            width, height = image.size
            raise UserError(f"{wrong} is {width}x{height}, not 105x105: {remedy}")
        return resize(image)


def resize(image: Image.Image) -> np.ndarray:
    """Return an image as grey after Pillow's Lanczos filter: uint8 [28, 28]."""
    side = omniglot.SIDE
    return np.asarray(image.convert("L").resize((side, side), Image.Resampling.LANCZOS))


def package_omniglot(archives: Path, output: Path = omniglot.PACKAGED) -> Path:
    """Write the file that comes with `tsar_jax`: the same bytes whenever zlib is the same.

    Raises UserError as `prepare_omniglot` does, and if the images are not the published ones.
    """
    splits = read_splits(archives, downloads=archives)
    if not omniglot.is_published(splits):
        raise UserError(
            f"the images from {archives} do not have the published digests: use the official "
            "archives and a Pillow whose Lanczos filter gives them (13.0.0 does)"
        )
    return write_packaged_file(output, splits)
