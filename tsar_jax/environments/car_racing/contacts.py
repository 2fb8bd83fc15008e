"""Which tiles of the road a car's parts touch."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.environments.car_racing.dynamics import (
    WHEEL_HALF_WIDTH,
    WHEEL_RADIUS,
    Car,
    rotate,
)
from tsar_jax.environments.car_racing.track import TILES, Track

OVERLAP = 0.02
"""m between shapes that Box2D takes for touching: two polygons have a skin of 0.01 each."""
WHEEL_HALVES = WHEEL_HALF_WIDTH, WHEEL_RADIUS
HULL_CENTRE, HULL_HALVES = np.array([0.0, 0.1]), (1.2, 2.5)
"""Of the rectangle around the hull, in its own frame."""


class Tiles(NamedTuple):
    """The tiles' outlines, with the tiles as last axis. Corners [4, 2, TILES], clockwise; the
    outward normals [4, 2, TILES] of the sides that begin there, and how far out these lie
    [4, TILES]; exists bool [TILES].
    """

    corners: jax.Array
    normals: jax.Array
    offsets: jax.Array
    exists: jax.Array


def outlines(track: Track) -> Tiles:
    """Of a track's tiles."""
    corners = jnp.moveaxis(track.corners, 0, -1)
    along = jnp.roll(corners, -1, axis=0) - corners
    length = jnp.sqrt(jnp.square(along).sum(1, keepdims=True))
    normals = jnp.stack([-along[:, 1], along[:, 0]], axis=1) / jnp.maximum(length, 1e-6)
    exists = jnp.arange(TILES) < track.size
    return Tiles(corners, normals, (normals * corners).sum(1), exists)


class Contacts(NamedTuple):
    """on_road bool [4]: which wheels touch a tile. By tile [TILES]: whether a wheel touches it, and
    whether a wheel or the hull does.
    """

    on_road: jax.Array
    by_wheel: jax.Array
    by_car: jax.Array


def touching(tiles: Tiles, car: Car) -> Contacts:
    """Where the car touches the road."""
    hull = car.position + rotate(car.angle, jnp.asarray(HULL_CENTRE))
    wheels = [
        _touches(tiles, centre, angle, WHEEL_HALVES)
        for centre, angle in zip(car.wheel_centres, car.wheel_angles, strict=True)
    ]
    parts = [*wheels, _touches(tiles, hull, car.angle, HULL_HALVES)]
    # Once for all their uses: without a barrier XLA computes them for each.
    *wheels, hull_touches = lax.optimization_barrier(parts)
    by_wheel = functools.reduce(jnp.logical_or, wheels)
    on_road = jnp.stack([wheel.any() for wheel in wheels])
    return Contacts(on_road, by_wheel, by_wheel | hull_touches)


def _touches(
    tiles: Tiles, centre: jax.Array, angle: jax.Array, halves: tuple[float, float]
) -> jax.Array:
    """bool [TILES]: tiles that a rectangle touches. centre [2]; halves: of its width and length.

    Both are convex, and so touch unless one's side parts them (separating axes). Side by side: a
    CPU then does it for all tiles in one go.
    """
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    gaps, rights, aheads = [], [], []
    for (x, y), (normal_x, normal_y), offset in zip(
        tiles.corners, tiles.normals, tiles.offsets, strict=True
    ):
        reach = halves[0] * jnp.abs(normal_x * cos + normal_y * sin)
        reach += halves[1] * jnp.abs(normal_y * cos - normal_x * sin)
        gaps.append(normal_x * centre[0] + normal_y * centre[1] - offset - reach)
        rights.append(cos * (x - centre[0]) + sin * (y - centre[1]))
        aheads.append(cos * (y - centre[1]) - sin * (x - centre[0]))
    for places, half in ((rights, halves[0]), (aheads, halves[1])):
        gaps.append(functools.reduce(jnp.minimum, places) - half)
        gaps.append(-functools.reduce(jnp.maximum, places) - half)
    return (functools.reduce(jnp.maximum, gaps) < OVERLAP) & tiles.exists
