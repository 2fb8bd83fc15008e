"""Contacts between the tiles of the road and the parts of a car."""

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
"""Distance in m below which Box2D takes shapes for touching: two polygons have a skin of 0.01 each.
"""
WHEEL_HALVES = WHEEL_HALF_WIDTH, WHEEL_RADIUS
HULL_CENTRE, HULL_HALVES = np.array([0.0, 0.1]), (1.2, 2.5)
"""Centre, and half the width and length, of the rectangle around the hull, in m in its own frame.
"""


class Tiles(NamedTuple):
    """Outlines of a track's tiles, with the tiles as last axis.

    corners: float [4, 2, TILES], clockwise.
    normals: float [4, 2, TILES], outward normals of the sides that begin at the corners.
    offsets: float [4, TILES], distances of those sides from the origin along their normals.
    exists: bool [TILES], false for the empty tiles past the track's end.
    """

    corners: jax.Array
    normals: jax.Array
    offsets: jax.Array
    exists: jax.Array


def outlines(track: Track) -> Tiles:
    """Return the outlines of a track's tiles."""
    corners = jnp.moveaxis(track.corners, 0, -1)
    along = jnp.roll(corners, -1, axis=0) - corners
    length = jnp.sqrt(jnp.square(along).sum(1, keepdims=True))
    normals = jnp.stack([-along[:, 1], along[:, 0]], axis=1) / jnp.maximum(length, 1e-6)
    exists = jnp.arange(TILES) < track.size
    return Tiles(corners, normals, (normals * corners).sum(1), exists)


class Contacts(NamedTuple):
    """Contacts of a car with the road.

    on_road: bool [4], which wheels touch a tile.
    by_wheel: bool [TILES], tiles that a wheel touches.
    by_car: bool [TILES], tiles that a wheel or the hull touches.
    """

    on_road: jax.Array
    by_wheel: jax.Array
    by_car: jax.Array


def touching(tiles: Tiles, car: Car) -> Contacts:
    """Return the contacts of a car with the road."""
    hull = car.position + rotate(car.angle, jnp.asarray(HULL_CENTRE))
    wheels = [
        _touches(tiles, centre, angle, WHEEL_HALVES)
        for centre, angle in zip(car.wheel_centres, car.wheel_angles, strict=True)
    ]
    parts = [*wheels, _touches(tiles, hull, car.angle, HULL_HALVES)]
    # Without this barrier XLA recomputes the contacts for each of their uses.
    *wheels, hull_touches = lax.optimization_barrier(parts)
    by_wheel = functools.reduce(jnp.logical_or, wheels)
    on_road = jnp.stack([wheel.any() for wheel in wheels])
    return Contacts(on_road, by_wheel, by_wheel | hull_touches)


def _touches(
    tiles: Tiles, centre: jax.Array, angle: jax.Array, halves: tuple[float, float]
) -> jax.Array:
    """Return which tiles a rectangle touches.

    Both shapes are convex, so they touch unless a side of one separates them (separating axes). The
    tests run over all tiles side by side, which a CPU vectorises.

    Args:
        tiles: outlines of the tiles.
        centre: centre of the rectangle, float [2].
        angle: rad, scalar.
        halves: half the rectangle's width and half its length, m.

    Returns:
        bool [TILES].
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
