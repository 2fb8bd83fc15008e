"""Images from elsewhere: read or refused, whatever their bytes."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from data_prep import images
from data_prep.images import open_image, resize_colour
from data_prep.own_images import FORMATS
from tsar_jax.errors import UserError


def encoded(image_format: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=image_format)
    return buffer.getvalue()


WHOLE = {image_format: encoded(image_format) for image_format in ("JPEG", "PNG")}
formats = st.sampled_from(sorted(WHOLE))


def read(data: bytes, *formats: str) -> np.ndarray:
    with open_image(data, formats, "drawing 7 of a.zip", "get it again") as image:
        return resize_colour(image, 28)


@pytest.mark.parametrize("image_format", WHOLE)
def test_an_image_is_read_in_the_formats_allowed(image_format: str) -> None:
    assert read(WHOLE[image_format], image_format).shape == (28, 28, 3)
    (other,) = WHOLE.keys() - {image_format}
    message = f"^drawing 7 of a.zip is not a readable {other} image: get it again$"
    with pytest.raises(UserError, match=message):
        read(WHOLE[image_format], other)


@settings(deadline=None)
@given(image_format=formats, data=st.data())
def test_a_truncated_image_is_refused(image_format: str, data: st.DataObject) -> None:
    # JPEG ends on a marker, PNG on a checksum, without which both are still complete.
    length = data.draw(st.integers(0, len(WHOLE[image_format]) - 40))
    with pytest.raises(UserError, match="is not a readable JPEG or PNG image"):
        read(WHOLE[image_format][:length], "JPEG", "PNG")


@settings(deadline=None)
@given(image_format=formats, data=st.data())
def test_a_damaged_image_is_read_or_refused(image_format: str, data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[image_format])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UserError):
        assert read(bytes(damaged), "JPEG", "PNG").dtype == np.uint8


def test_a_problem_of_the_callers_is_left_as_it_is() -> None:
    with (
        pytest.raises(UserError, match="too small"),
        open_image(WHOLE["PNG"], ("PNG",), "a", "b"),
    ):
        raise UserError("too small")


def saved(image_format: str, mode: str = "RGB", **options: object) -> bytes:
    """An image of 40x30 pixels."""
    buffer = io.BytesIO()
    Image.new(mode, (40, 30)).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (saved("JPEG"), None),
        (saved("PNG"), None),
        (saved("BMP"), None),
        (saved("GIF"), None),
        (saved("PPM"), None),
        (saved("WEBP"), "WEBP"),
        (saved("TIFF"), "TIFF"),
        (saved("JPEG", "CMYK"), "CMYK"),
        (saved("JPEG", progressive=True), "progressive"),
    ],
)
def test_an_image_of_more_pixels_than_its_kind_may_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, data: bytes, kind: str | None
) -> None:
    assert 0 < images.MOST_PIXELS.get(kind, 1) < images.MAX_PIXELS

    def allow(pixels: int) -> None:
        if kind is None:
            monkeypatch.setattr(images, "MAX_PIXELS", pixels)
        else:
            monkeypatch.setitem(images.MOST_PIXELS, kind, pixels)

    allow(1200)
    assert read(data, *FORMATS).shape == (28, 28, 3)
    allow(1199)
    message = "^drawing 7 of a.zip is 40x30, more than 1199 pixels: get it again$"
    with pytest.raises(UserError, match=message):
        read(data, *FORMATS)


def test_a_header_that_claims_many_pixels_is_believed_before_any_is_decoded() -> None:
    head = saved("PNG").replace(b"\0\0\0\x28\0\0\0\x1e", b"\0\0\x20\x01\0\0\x10\0")
    at = head.index(b"IHDR")
    checksum = zlib.crc32(head[at : at + 17]).to_bytes(4, "big")
    with pytest.raises(UserError, match="is 8193x4096, more than 33554432 pixels"):
        read(head[: at + 17] + checksum + head[at + 21 :], "PNG")


def tiff_tags(number: int, value: object, kind: int) -> TiffImagePlugin.ImageFileDirectory_v2:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[number] = kind
    tags[number] = value
    return tags


NOTES = Image.Exif()
NOTES[0x010E] = 2000 * "x"


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG", comment=b"a" * 2000),
        saved("JPEG", exif=NOTES),
        saved("PNG", exif=NOTES),
        saved("PNG", icc_profile=bytes(2000)),
        saved("WEBP", xmp=bytes(2000)),
        saved("TIFF", tiffinfo=tiff_tags(65000, tuple(range(1000)), 3)),
    ],
)
def test_metadata_beyond_what_is_usual_are_refused(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    assert read(data, *FORMATS).shape == (28, 28, 3)
    monkeypatch.setattr(images, "MAX_METADATA", 1900)
    monkeypatch.setattr(images, "MAX_NUMBERS", 1900)
    message = "^drawing 7 of a.zip has more metadata than a photograph needs: get it again$"
    with pytest.raises(UserError, match=message):
        read(data, *FORMATS)


def test_a_tiff_may_hold_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_METADATA", 1900)
    monkeypatch.setattr(images, "MAX_NUMBERS", 1900)
    layers = saved("TIFF", tiffinfo=tiff_tags(37724, bytes(2000), 7))
    assert read(layers, *FORMATS).shape == (28, 28, 3)
    monkeypatch.setattr(images, "MAX_LAYERS", 1900)
    with pytest.raises(UserError, match="has more metadata"):
        read(layers, *FORMATS)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "P", "RGBA", "LA"])
def test_images_of_all_kinds_become_colour(mode: str) -> None:
    image = Image.new("RGB", (50, 40), (255, 255, 255)).convert(mode)
    np.testing.assert_array_equal(resize_colour(image, 28), np.full((28, 28, 3), 255, np.uint8))


def test_pixels_are_averaged_over_what_each_new_one_covers() -> None:
    stripes = np.zeros((56, 56, 3), np.uint8)
    stripes[:, ::2] = 200
    resized = resize_colour(Image.fromarray(stripes), 28)
    np.testing.assert_array_equal(resized[:, 1:-1], 100)


def many_tags(entries: int, kind: int, count: int, big: bool = False) -> bytes:
    """A TIFF whose tags all point to the same place, far beyond its end."""
    head, form = b"II\x2a\0" + struct.pack("<IH", 8, entries), "<HHII"
    if big:
        head, form = b"MM\0\x2b\0\x08\0\0" + struct.pack(">QQ", 16, entries), ">HHQQ"
    return head + b"".join(struct.pack(form, 700 + n, kind, count, 8) for n in range(entries))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("kind", "count"), [(7, 1 << 17), (3, 1 << 12)])
def test_tags_that_share_their_bytes_are_counted_one_by_one(
    kind: int, count: int, big: bool
) -> None:
    data = many_tags(300, kind, count, big)
    with pytest.raises(UserError, match="more metadata than a photograph needs"):
        read(data, *FORMATS)
    exif = encoded_with_exif(data)
    with pytest.raises(UserError, match="more metadata than a photograph needs"):
        read(exif, *FORMATS)
    with pytest.raises(UserError, match="not a readable"):
        read(many_tags(2, kind, 4, big), *FORMATS)


def encoded_with_exif(tags: bytes) -> bytes:
    return saved("JPEG", exif=b"Exif\0\0" + tags)


def test_text_behind_a_pngs_pixels_is_bounded_too() -> None:
    """Pillow reads it with the pixels; each chunk alone is below its own bound."""
    text = b"note\0\0" + zlib.compress(900_000 * b"x")
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    whole = saved("PNG")
    end = whole.index(b"IEND") - 4
    assert read(whole[:end] + chunk + whole[end:], "PNG").shape == (28, 28, 3)
    with pytest.raises(UserError, match="not a readable PNG image"):
        read(whole[:end] + 3 * chunk + whole[end:], "PNG")


@pytest.mark.parametrize("image_format", ["JPEG", "MPO"])
def test_a_jpeg_of_many_scans_is_refused_however_it_is_called(
    monkeypatch: pytest.MonkeyPatch, image_format: str
) -> None:
    several = {"save_all": True, "append_images": [Image.new("RGB", (40, 30))]}
    options = several if image_format == "MPO" else {}
    data = saved(image_format, progressive=True, **options)
    assert read(data, "JPEG").shape == (28, 28, 3)
    monkeypatch.setattr(images, "MAX_SCANS", 3)
    with pytest.raises(UserError, match="is a JPEG of more than 3 scans"):
        read(data, "JPEG")
