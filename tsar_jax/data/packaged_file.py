"""Files that come with this package: written to the same bytes each time, and images read back.

Images are read exactly as published, or not at all.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError


def read_packaged_file(
    path: Path,
    splits: Iterable[str],
    is_published: Callable[[dict[str, ImageSet]], bool],
    remedy: str,
) -> dict[str, ImageSet]:
    """Return the splits in an npz file: of each, an array of images and one of names,
    `<split>_names`.

    Args:
        path: of the file.
        splits: their names.
        is_published: whether the splits are the right ones, byte for byte.
        remedy: advice about a damaged file, for the error.

    Raises:
        UserError: the file is missing, unreadable or another.
    """
    damaged = UserError(f"{path} is missing or damaged: {remedy}")
    try:
        with np.load(path, allow_pickle=False) as file:
            images = {
                split: ImageSet(file[split], tuple(map(str, file[f"{split}_names"])))
                for split in splits
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged from error
    if not is_published(images):
        raise damaged
    return images


def write_npz(output: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as np.savez_compressed does, but equal arrays always to the same bytes."""
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, array in arrays.items():
            # A ZipInfo made from a name has a fixed date, so that equal arrays give equal files.
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with file.open(member, "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def digests(images: ImageSet) -> tuple[str, str]:
    """Return the SHA-256 of the images' bytes and of the names, a line each."""
    return (
        hashlib.sha256(images.images.tobytes()).hexdigest(),
        hashlib.sha256("\n".join(images.names).encode()).hexdigest(),
    )
