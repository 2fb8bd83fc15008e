"""Writing of the files of images that come with `tsar_jax`."""

from pathlib import Path

import numpy as np

from tsar_jax.atomic import replacing
from tsar_jax.data.packaged_file import write_npz
from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError


def write_packaged_file(output: Path, splits: dict[str, ImageSet]) -> Path:
    """Write the npz file that `read_packaged_file` reads, as a whole or not at all.

    The bytes are the same whenever the images and zlib are. Raises UserError if `output` cannot be
    written.
    """
    arrays = {}
    for split, images in splits.items():
        arrays[split] = images.images
        arrays[f"{split}_names"] = np.array(images.names)
    try:
        with replacing(output) as file:
            write_npz(file, arrays)
    except OSError as error:
        raise UserError(
            f"cannot write {output} ({error}): make its folder writable or free space there"
        ) from error
    return output
