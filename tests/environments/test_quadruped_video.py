"""Frames of a quadruped: that they show the body where it is, with and without OpenGL."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tsar_jax.environments import quadruped_video
from tsar_jax.environments.quadruped_body import Body, build_model, find_body
from tsar_jax.environments.quadruped_video import draw, photograph, render
from tsar_jax.errors import UserError

WIDTH, HEIGHT = 160, 120


def postures(*places):
    qpos = np.tile(build_model(Body()).qpos0, (len(places), 1))
    qpos[:, :2] = places
    return qpos


def body_pixels(frame):
    """Where a frame is warm of colour, as the body is and the floor is not, [height, width]."""
    return frame[..., 0] > frame[..., 2] + np.int16(40)


def test_frames_show_the_body_in_the_middle_wherever_it_is() -> None:
    frames = draw(build_model(Body()), postures((0, 0), (31.3, -7.9)), WIDTH, HEIGHT)
    assert frames.shape == (2, HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8
    first, second = (body_pixels(frame) for frame in frames)
    np.testing.assert_array_equal(first, second)
    assert 0.02 < first.mean() < 0.5
    rows, columns = np.nonzero(first)
    assert abs(rows.mean() - HEIGHT / 2) < 10
    assert abs(columns.mean() - WIDTH / 2) < 10
    # The floor's tiles pass by.
    assert (frames[0] != frames[1]).any()


def test_the_camera_projects_as_a_lens_does() -> None:
    torso = np.array([3.0, -2.0, 0.6])
    camera = quadruped_video._camera(torso, (WIDTH, HEIGHT), 45.0)
    np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(camera.pixels(torso[None])[0], [WIDTH / 2, HEIGHT / 2], atol=1e-9)
    np.testing.assert_allclose(camera.depth(torso), quadruped_video.DISTANCE)
    # As high above the middle as half the field of view: at the upper edge.
    above = torso + np.tan(np.radians(45 / 2)) * quadruped_video.DISTANCE * camera.axes[1]
    np.testing.assert_allclose(camera.pixels(above[None])[0], [WIDTH / 2, 0], atol=1e-9)
    assert camera.axes[1, 2] > 0
    # Seen from its right and from above, what walks ahead goes rightwards.
    assert camera.pixels(torso[None] + [0.1, 0, 0])[0, 0] > WIDTH / 2


def test_a_damaged_leg_is_seen() -> None:
    whole, damaged = (
        body_pixels(draw(build_model(body), postures((0, 0)), WIDTH, HEIGHT)[0])
        for body in (Body(), find_body("right_front"))
    )
    assert 0.7 * whole.sum() < damaged.sum() < 0.97 * whole.sum()


def test_without_opengl_frames_are_drawn(monkeypatch) -> None:
    monkeypatch.setattr(quadruped_video, "_has_opengl", lambda: False)
    model, qpos = build_model(Body()), postures((0, 0))
    with pytest.raises(UserError, match="set MUJOCO_GL=egl and install libegl1"):
        photograph(model, qpos, WIDTH, HEIGHT)
    frames = render(model, qpos, WIDTH, HEIGHT)
    np.testing.assert_array_equal(frames, draw(model, qpos, WIDTH, HEIGHT))


TWO_FILMS = """
from tsar_jax.environments.quadruped_body import Body, build_model
from tsar_jax.environments.quadruped_video import render

model = build_model(Body())
for _ in range(2):
    assert render(model, model.qpos0[None], 80, 60).shape == (1, 60, 80, 3)
"""


def test_a_second_film_is_made_with_or_without_opengl() -> None:
    subprocess.run([sys.executable, "-c", TWO_FILMS], check=True)


WITH_OPENGL = """
import numpy as np
from tsar_jax.environments.quadruped_body import Body, build_model
from tsar_jax.environments.quadruped_video import draw, photograph
from tsar_jax.errors import UserError

model = build_model(Body())
try:
    photo = photograph(model, model.qpos0[None], 800, 600)[0]
except UserError:
    raise SystemExit(77)
drawing = draw(model, model.qpos0[None], 800, 600)[0]
body = [frame[..., 0] > frame[..., 2] + np.int16(40) for frame in (photo, drawing)]
assert photo.shape == drawing.shape and photo.dtype == np.uint8
assert np.logical_and(*body).sum() > 0.6 * np.logical_or(*body).sum()
"""


def test_mujocos_renderer_shows_the_same_body_at_the_same_place() -> None:
    # Apart, because mujoco chooses its renderer when it is imported.
    environment = os.environ | {"MUJOCO_GL": "egl", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", WITH_OPENGL], env=environment, capture_output=True, check=False
    )
    if result.returncode == 77 or b"OpenGL/" in result.stderr:
        pytest.skip("there is no EGL here")
    assert result.returncode == 0, result.stderr.decode()
