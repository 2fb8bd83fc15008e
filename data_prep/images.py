"""Images from elsewhere, read within bounds of memory."""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

from tsar_jax.errors import UserError

MAX_PIXELS = 1 << 25
"""Largest number of pixels of an image, 33.5 million; they take 134 MB once decoded."""
MOST_PIXELS: dict[str | None, int] = {
    "WEBP": 12_000_000,
    "TIFF": 20_000_000,
    "CMYK": 22_000_000,
    "progressive": 27_000_000,
}
"""Largest number of pixels by format, mode or coding, where decoding takes several copies.

Measured at these, above an idle process and with files of 64 MB: 359 MB of WEBP, 336 of progressive
JPEG, 330 of CMYK, 374 of a TIFF in one strip with 24 MB of text. At `MAX_PIXELS` it is 215 MB of
other JPEG, 327 of PNG with alpha, 226 of GIF, 194 of BMP and PPM.
"""
MAX_METADATA = 1 << 23
"""Largest size in bytes of profiles, comments and camera notes; Pillow keeps up to four copies."""
MAX_LAYERS = 24 << 20
"""Largest size in bytes of a TIFF's tags that are no numbers, which may hold a picture's layers."""
MAX_NUMBERS = 1 << 20
"""Largest size in bytes of a TIFF's tags of numbers, which take some 18 times as much in Python."""
KEPT_TYPES = (1, 2, 7)
"""Types of a TIFF's tags that Pillow keeps as bytes: bytes, text and undefined."""
TYPE_BYTES = dict.fromkeys((1, 2, 6, 7), 1) | dict.fromkeys((3, 8), 2)
TYPE_BYTES |= dict.fromkeys((4, 9, 11, 13), 4) | dict.fromkeys((5, 10, 12, 16, 17, 18), 8)
"""Bytes of one value of each type of a TIFF's tags."""
MAX_SCANS = 100
"""Largest number of a progressive JPEG's passes over all of its pixels; some ten are usual."""
SCAN = b"\xff\xda"
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
# Pillow's own bound on the text after a PNG's pixels, in characters, of up to 4 bytes each.
PngImagePlugin.MAX_TEXT_MEMORY = MAX_METADATA // 4
TO_BYTES = ((np.arange(1 << 16, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
"""Table from 0..65535 to 0..255, rounded."""


@contextlib.contextmanager
def open_image(
    data: bytes, formats: tuple[str, ...], wrong: str, remedy: str
) -> Iterator[Image.Image]:
    """Open an image in one of these formats, not yet decoded, to be used within the block.

    It has at most `MAX_PIXELS`, or fewer by its kind as in `MOST_PIXELS`, and metadata of a usual
    size, so that reading it takes less than 400 MB, its file included. One of 16 bits is decoded
    and scaled to 8, since Pillow cuts values above 255; an image of another range is refused.

    Args:
        data: the file's bytes.
        formats: Pillow's names of the formats that are accepted.
        wrong: name of the image in the error if it is not readable.
        remedy: what to do then.

    Raises:
        UserError: it cannot be read, which may turn out while it is decoded within the block.
    """
    too_much = f"{wrong} has more metadata than a photograph needs: {remedy}"
    try:
        if _has_many_tags(data):  # which Pillow reads as it opens a TIFF
            raise UserError(too_much)
        with _quiet_pillow(), Image.open(io.BytesIO(data), formats=formats) as image:
            width, height = image.size
            kinds = (image.format, image.mode, "progressive" if "progressive" in image.info else "")
            most = min(MOST_PIXELS.get(kind, MAX_PIXELS) for kind in kinds)
            if width * height > most:
                raise UserError(f"{wrong} is {width}x{height}, more than {most} pixels: {remedy}")
            # Pillow calls a JPEG that says there are more pictures in its file an MPO.
            if image.format in ("JPEG", "MPO") and data.count(SCAN) > MAX_SCANS:
                raise UserError(f"{wrong} is a JPEG of more than {MAX_SCANS} scans: {remedy}")
            if _has_much_beside(image) or _has_many_tags(image.info.get("exif", b"")):
                raise UserError(too_much)
            yield _of_bytes(image, wrong, remedy)
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{wrong} is not a readable {' or '.join(formats)} image: {remedy}"
        ) from error


def _has_much_beside(image: Image.Image) -> bool:
    """Return whether an image, not decoded, has more metadata than is accepted."""
    if image.format == "TIFF":
        return False  # its tags are counted before it is opened
    kept = [value for value in image.info.values() if isinstance(value, bytes | str)]
    # A JPEG's segments, of which Pillow keeps those it knows once more.
    kept += [segment for _, segment in getattr(image, "applist", ())]
    return sum(map(len, kept)) > MAX_METADATA


def _has_many_tags(data: bytes) -> bool:
    """Return whether the first directory of a TIFF, or of Exif, has too many bytes of tags.

    Several tags may point to the same bytes, each of which Pillow would keep for itself. False for
    data in another format, whose faults Pillow reports.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return False
    try:
        (big,) = struct.unpack_from(order + "H", data, 2)
        # BigTIFF, of version 43, has 64 bits for what TIFF has 16 or 32 bits for.
        at = struct.unpack_from(order + ("Q" if big == 43 else "I"), data, 8 if big == 43 else 4)[0]
        number, entry = ("Q", "HHQQ") if big == 43 else ("H", "HHII")
        (entries,) = struct.unpack_from(order + number, data, at)
        first, size = at + struct.calcsize(order + number), struct.calcsize(order + entry)
        numbers = others = 0
        for place in range(first, min(first + entries * size, len(data) - size + 1), size):
            _, kind, count, _ = struct.unpack_from(order + entry, data, place)
            if kind in KEPT_TYPES:
                others += count
            else:
                numbers += count * TYPE_BYTES.get(kind, 0)
    except struct.error:
        return False
    return numbers > MAX_NUMBERS or others > MAX_LAYERS


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Suppress the warning of images so large that they are refused anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _of_bytes(image: Image.Image, wrong: str, remedy: str) -> Image.Image:
    """Return the image, scaled to 8 bits a pixel if it has 16."""
    # A TIFF's tag 258 has the bits per sample: Pillow gives those of 12 bits in 16, unscaled.
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
    """Return an image as RGB after Pillow's bilinear filter, as in torchvision's Resize.

    The whole image is squeezed into the square, whatever its proportions: uint8 [side, side, 3].
    """
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
