"""Images from elsewhere, read without trust."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tsar_jax.errors import UserError


@contextlib.contextmanager
def open_image(
    data: bytes, formats: tuple[str, ...], wrong: str, remedy: str
) -> Iterator[Image.Image]:
    """An image in one of these formats, not yet decoded, to be used within the block.

    wrong: names the offender, should it not be readable. remedy: what to do then. Both are for the
    UserError that the block raises if the image turns out unreadable while it is decoded there.
    """
    try:
        with _quiet_pillow(), Image.open(io.BytesIO(data), formats=formats) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{wrong} is not a readable {' or '.join(formats)} image: {remedy}"
        ) from error


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Without the warning of images so large that they are refused anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def resize_colour(image: Image.Image, side: int) -> np.ndarray:
    """RGB, then Pillow's bilinear filter, as torchvision's Resize: uint8 [side, side, 3].

    The whole image is squeezed into the square, whatever its proportions.
    """
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
