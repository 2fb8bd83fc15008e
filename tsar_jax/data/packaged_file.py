"""Reads the files of images that come with this package: as they were published, or not at all."""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError


def read_packaged_file(
    path: Path,
    splits: Iterable[str],
    is_published: Callable[[dict[str, ImageSet]], bool],
    remedy: str,
) -> dict[str, ImageSet]:
    """The splits in an npz file: of each, an array of images and one of names, `<split>_names`.

    is_published: whether the splits are the right ones, byte for byte. remedy: what the user can do
    about a damaged file, for the UserError that is raised if it is missing, unreadable or another.
    """
    damaged = UserError(f"{path} is missing or damaged: {remedy}")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {
                split: ImageSet(file[split], tuple(map(str, file[f"{split}_names"])))
                for split in splits
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged from error
    if not is_published(found):
        raise damaged
    return found


def digests(images: ImageSet) -> tuple[str, str]:
    """SHA-256 of the images' bytes and of the names, a line each."""
    return (
        hashlib.sha256(images.images.tobytes()).hexdigest(),
        hashlib.sha256("\n".join(images.names).encode()).hexdigest(),
    )
