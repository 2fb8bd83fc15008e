"""Images from elsewhere, read without trust."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tsar_jax.errors import UserError

MAX_PIXELS = 1 << 25
"""Of an image: 33.5 million, 134 MB once decoded; an image is never decoded if it has more."""
MOST_PIXELS: dict[str | None, int] = {
    "WEBP": 12_000_000,
    "TIFF": 20_000_000,
    "CMYK": 22_000_000,
    "progressive": 27_000_000,
}
"""Of an image whose format, mode or way of coding takes several copies of it in memory to decode.

Measured at these, above an idle process and with files of 64 MB: 359 MB of WEBP, 336 of progressive
JPEG, 330 of CMYK, 374 of a TIFF in one strip with 24 MB of text. At `MAX_PIXELS` it is 215 MB of
other JPEG, 327 of PNG with alpha, 226 of GIF, 194 of BMP and PPM.
"""
MAX_METADATA = 1 << 23
"""Bytes of profiles, comments and a camera's notes, which Pillow keeps up to four times over."""
MAX_LAYERS = 24 << 20
"""Bytes of a TIFF's tags that are no numbers, which may hold the layers of a picture."""
MAX_NUMBERS = 1 << 20
"""Bytes of a TIFF's tags of numbers, which become Python's, of some 18 times as many bytes."""
BYTES_OF_TIFF = (1, 2, 7)
"""Types of a TIFF's tags that are kept as they are: bytes, text and what only a program knows."""
MAX_SCANS = 100
"""Passes of a progressive JPEG over all of its pixels; some ten are usual."""
SCAN = b"\xff\xda"
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
TO_BYTES = ((np.arange(1 << 16, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
"""0..65535 -> 0..255, rounded."""


@contextlib.contextmanager
def open_image(
    data: bytes, formats: tuple[str, ...], wrong: str, remedy: str
) -> Iterator[Image.Image]:
    """An image in one of these formats, not yet decoded, to be used within the block.

    It has at most `MAX_PIXELS`, or fewer by its kind as in `MOST_PIXELS`, and metadata of a size
    that is usual, so that reading it takes less than 400 MB, its file included. One of 16 bits
    is decoded and scaled to 8, since Pillow cuts all that is above 255; whatever has another range
    than these two is refused.

    wrong: names the offender, should it not be readable. remedy: what to do then. Both are for the
    UserError that the block raises if the image turns out unreadable while it is decoded there.
    """
    try:
        with _quiet_pillow(), Image.open(io.BytesIO(data), formats=formats) as image:
            width, height = image.size
            kinds = (image.format, image.mode, "progressive" if "progressive" in image.info else "")
            most = min(MOST_PIXELS.get(kind, MAX_PIXELS) for kind in kinds)
            if width * height > most:
                raise UserError(f"{wrong} is {width}x{height}, more than {most} pixels: {remedy}")
            if image.format == "JPEG" and data.count(SCAN) > MAX_SCANS:
                raise UserError(f"{wrong} is a JPEG of more than {MAX_SCANS} scans: {remedy}")
            if _has_much_beside(image):
                raise UserError(f"{wrong} has more metadata than a photograph needs: {remedy}")
            yield _of_bytes(image, wrong, remedy)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{wrong} is not a readable {' or '.join(formats)} image: {remedy}"
        ) from error


def _has_much_beside(image: Image.Image) -> bool:
    """Whether an image, not decoded, has more beside its pixels than is read."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        numbers = others = 0
        for tag, data in tags._tagdata.items():  # to ask for a tag's value would read it
            if tags.tagtype[tag] in BYTES_OF_TIFF:
                others += len(data)
            else:
                numbers += len(data)
        return numbers > MAX_NUMBERS or others > MAX_LAYERS
    kept = [value for value in image.info.values() if isinstance(value, bytes | str)]
    # A JPEG's segments, of which Pillow keeps those it knows once more.
    kept += [segment for _, segment in getattr(image, "applist", ())]
    return sum(map(len, kept)) > MAX_METADATA


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Without the warning of images so large that they are refused anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _of_bytes(image: Image.Image, wrong: str, remedy: str) -> Image.Image:
    """The image, or one of 16 bits a pixel scaled to 8."""
    # Of TIFF, how many bits a sample really has: Pillow gives those of 12 in 16, unscaled.
    bits = set(image.tag_v2.get(258, ())) if image.format == "TIFF" else set()  # type: ignore[attr-defined]
    wide = image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if wide and bits <= {16}:
        values = np.asarray(image)
        if image.mode != "I" or (values.min() >= 0 and values.max() < len(TO_BYTES)):
            return Image.fromarray(TO_BYTES[values])
    elif image.mode not in (*SIXTEEN_BITS, "I", "F"):
        return image
    raise UserError(
        f"{wrong} has pixels of mode {image.mode}, whose range is not known: convert it to 8 or 16 "
        "bits a channel"
    )


def resize_colour(image: Image.Image, side: int) -> np.ndarray:
    """RGB, then Pillow's bilinear filter, as torchvision's Resize: uint8 [side, side, 3].

    The whole image is squeezed into the square, whatever its proportions.
    """
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
