"""Images from elsewhere: read or refused, whatever their bytes."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.images import open_image, resize_colour
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


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "P", "RGBA", "LA"])
def test_images_of_all_kinds_become_colour(mode: str) -> None:
    image = Image.new("RGB", (50, 40), (255, 255, 255)).convert(mode)
    np.testing.assert_array_equal(resize_colour(image, 28), np.full((28, 28, 3), 255, np.uint8))


def test_pixels_are_averaged_over_what_each_new_one_covers() -> None:
    stripes = np.zeros((56, 56, 3), np.uint8)
    stripes[:, ::2] = 200
    resized = resize_colour(Image.fromarray(stripes), 28)
    np.testing.assert_array_equal(resized[:, 1:-1], 100)
