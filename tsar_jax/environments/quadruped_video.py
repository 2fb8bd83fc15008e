"""Pictures of quadrupeds, frame by frame, for a film."""

import copy
import functools
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from tsar_jax.environments.quadruped_body import load_simulator
from tsar_jax.errors import UserError

AZIMUTH, ELEVATION, DISTANCE = 110.0, -25.0, 4.0  # degrees, degrees, m: the camera from the torso
SUPERSAMPLING = 2
TILES = 14  # number drawn either way from the torso, 1 m each
NEAR = 0.2  # m before the camera, where the picture begins
FLOOR, TILE, SHADOW = (96, 116, 132), (110, 131, 147), (72, 88, 102)
OUTLINE = 0.75  # the brightness of a limb's edge


def render(model: Any, qpos: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return frames, uint8 [frames, height, width, 3], of a body in the postures qpos [frames, 15].

    They are MuJoCo's own pictures where it can make them (see `photograph`), else simpler ones (see
    `draw`) from the same camera, which follows the torso. model: mujoco.MjModel of the body.
    """
    try:
        return photograph(model, qpos, width, height)
    except UserError:
        return draw(model, qpos, width, height)


def photograph(model: Any, qpos: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return frames as `render` does, shaded by MuJoCo's renderer.

    This needs OpenGL: without a screen, MUJOCO_GL=egl or osmesa in the environment before Python
    starts, and the system's library for it.

    Raises:
        UserError: there is no OpenGL.
    """
    mujoco = load_simulator()
    if not _has_opengl():
        raise UserError(
            "MuJoCo finds no OpenGL to render with: set MUJOCO_GL=egl and install libegl1, or set "
            "MUJOCO_GL=osmesa and install libosmesa6."
        )
    own = copy.copy(model)
    own.vis.global_.offwidth, own.vis.global_.offheight = width, height
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation, camera.distance = AZIMUTH, ELEVATION, DISTANCE
    frames = []
    with mujoco.Renderer(own, height, width) as renderer:
        for data in _poses(mujoco, own, qpos):
            camera.lookat = data.xpos[1]
            renderer.update_scene(data, camera)
            frames.append(renderer.render())
    return np.stack(frames)


@functools.cache
def _has_opengl() -> bool:
    """Return whether MuJoCo can render, cached: where it cannot, trying again aborts Python."""
    mujoco = load_simulator()
    try:
        with warnings.catch_warnings(action="ignore"):  # each missing screen is one more
            mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 1, 1).close()
    except (AttributeError, ImportError, RuntimeError, mujoco.FatalError):
        return False
    return True


def _poses(mujoco: Any, model: Any, qpos: np.ndarray) -> Iterator[Any]:
    """Yield the same MjData over and over, with the body in each of the postures."""
    data = mujoco.MjData(model)
    for posture in qpos:
        data.qpos[:] = posture
        mujoco.mj_forward(model, data)
        yield data


def draw(model: Any, qpos: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return frames as `render` does, without OpenGL: limbs as thick lines, the farthest first."""
    mujoco = load_simulator()
    size = SUPERSAMPLING * width, SUPERSAMPLING * height
    frames = []
    for data in _poses(mujoco, model, qpos):
        camera = _camera(data.xpos[1], size, model.vis.global_.fovy)
        image = Image.new("RGB", size, FLOOR)
        canvas = ImageDraw.Draw(image)
        _draw_floor(canvas, camera, data.xpos[1])
        limbs = _limbs(mujoco, model, data)
        for limb in limbs:
            _draw_limb(canvas, camera, limb._replace(ends=limb.ends * [1, 1, 0]), SHADOW, 1)
        for limb in sorted(limbs, key=lambda limb: -camera.depth(limb.ends).mean()):
            edge = tuple(int(OUTLINE * channel) for channel in limb.colour)
            _draw_limb(canvas, camera, limb, edge, 1)
            _draw_limb(canvas, camera, limb, limb.colour, OUTLINE)
        frames.append(np.asarray(image.resize((width, height), Image.Resampling.BOX)))
    return np.stack(frames)


class _Camera(NamedTuple):
    """A camera: eye [3]; axes [3, 3]: rightwards, upwards, ahead; centre [2] and focal length,
    pixels.
    """

    eye: np.ndarray
    axes: np.ndarray
    centre: np.ndarray
    focal: float

    def depth(self, points: np.ndarray) -> np.ndarray:
        return (points - self.eye) @ self.axes[2]

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Return points [n, 3] as pixels [n, 2], rightwards and downwards."""
        in_view = (points - self.eye) @ self.axes.T
        return self.centre + self.focal * in_view[:, :2] * [1, -1] / in_view[:, 2:]


def _camera(torso: np.ndarray, size: tuple[int, int], field_of_view: float) -> _Camera:
    """Return a camera that looks at the torso; field_of_view: from the lower edge to the upper,
    degrees.
    """
    azimuth, elevation = np.radians([AZIMUTH, ELEVATION])
    flat = np.array([np.cos(azimuth), np.sin(azimuth), 0])
    ahead = np.cos(elevation) * flat + [0, 0, np.sin(elevation)]
    right = np.array([flat[1], -flat[0], 0])
    axes = np.stack([right, np.cross(right, ahead), ahead])
    focal = size[1] / 2 / np.tan(np.radians(field_of_view) / 2)
    return _Camera(torso - DISTANCE * ahead, axes, np.array(size) / 2, focal)


class _Limb(NamedTuple):
    """A capsule; a sphere where its ends [2, 3] coincide. radius, m; colour: red, green, blue."""

    ends: np.ndarray
    radius: float
    colour: tuple[int, ...]


def _limbs(mujoco: Any, model: Any, data: Any) -> list[_Limb]:
    limbs = []
    for geom in np.flatnonzero(model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE):
        radius, half = model.geom_size[geom, :2]  # half is 0 for a sphere
        axis = half * data.geom_xmat[geom].reshape(3, 3)[:, 2]
        ends = data.geom_xpos[geom] + np.stack([axis, -axis])
        colour = tuple(int(255 * channel) for channel in model.geom_rgba[geom, :3])
        limbs.append(_Limb(ends, radius, colour))
    return limbs


def _draw_floor(canvas: ImageDraw.ImageDraw, camera: _Camera, torso: np.ndarray) -> None:
    """Draw every other tile, which shows how far the body has come."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    for x in range(-TILES, TILES):
        for y in range(-TILES, TILES):
            tile = corners + np.floor([torso[0] + x, torso[1] + y, 0])
            if tile[0].sum() % 2 == 0 and camera.depth(tile).min() > NEAR:
                canvas.polygon([tuple(corner) for corner in camera.pixels(tile)], TILE)


def _draw_limb(
    canvas: ImageDraw.ImageDraw,
    camera: _Camera,
    limb: _Limb,
    colour: tuple[int, ...],
    thickness: float,
) -> None:
    """Draw a limb in one colour, at a thickness relative to its own."""
    ends = camera.pixels(limb.ends)
    radii = thickness * limb.radius * camera.focal / camera.depth(limb.ends)
    canvas.line([tuple(end) for end in ends], colour, round(2 * radii.mean()))
    for end, radius in zip(ends, radii, strict=True):
        canvas.ellipse([*(end - radius), *(end + radius)], colour)
