"""A track's road as a map of texels, drawn once per race; every frame looks its pixels up in it.

A texel is 16 bits: from the top, six of coverage (0 grass, 63 road), nine of the tile's number, and
one for its kerb. The larger of two texels is on top: road over its own edge, a later tile over an
earlier one, which is the order in which Gymnasium paints them.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.environments.car_racing.track import (
    DETAIL,
    EXTENT,
    HALF_WIDTH,
    KERB_WIDTH,
    TILES,
    TURN_RATE,
    Track,
)

TEXEL = 0.4
"""Side of a texel; a pixel of the usual view covers 0.64 by 0.51."""
SIDE = round(2 * EXTENT / TEXEL)
"""Texels along each side of the map."""
EDGE = 0.57
"""Width over which coverage falls at the road's edge: the width that a pixel averages over."""
COVERAGES = 63
MOST_TILES, COVERAGE_SHIFT = 512, 10
"""Numbers that nine bits hold, and the bit at which coverage begins."""

_REACH = HALF_WIDTH + KERB_WIDTH + EDGE / 2
_PATCH = math.ceil(math.hypot(2 * _REACH, DETAIL + HALF_WIDTH * TURN_RATE) / TEXEL) + 2
"""Side of a square of texels that holds a tile and its kerb."""


def draw_map(track: Track) -> jax.Array:
    """Return the map uint16 [SIDE, SIDE], rows along y, painted tile after tile."""

    def paint(tile: jax.Array, painted: jax.Array) -> jax.Array:
        ends = jnp.stack([(tile - 1) % track.size, tile])
        points, headings = track.points[ends], track.headings[ends]
        middle = points.mean(0)
        corner = jnp.floor((middle + EXTENT) / TEXEL).astype(jnp.int32) - _PATCH // 2
        corner = jnp.clip(corner, 0, SIDE - _PATCH)
        row, column = jnp.arange(_PATCH)[:, None], jnp.arange(_PATCH)
        x = (corner[0] + column + 0.5) * TEXEL - EXTENT
        y = (corner[1] + row + 0.5) * TEXEL - EXTENT
        inside, lateral = _place(points, headings, x, y)
        inside &= tile < track.size
        texels = jnp.where(inside, _texel(tile, track.kerbs[tile], lateral), 0)
        at = corner[1], corner[0]
        below = lax.dynamic_slice(painted, at, (_PATCH, _PATCH))
        return lax.dynamic_update_slice(painted, jnp.maximum(below, texels), at)

    # The loop covers the empty tiles too: with a number of steps that depends on the track, a
    # batch of tracks would copy its maps at every step.
    return lax.fori_loop(0, TILES, paint, jnp.zeros((SIDE, SIDE), jnp.uint16))


def _place(
    points: jax.Array, headings: jax.Array, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Locate points relative to a tile.

    Args:
        points: float [2, 2], the tile's two ends, the earlier first.
        headings: float [2], rad, at those ends.
        x, y: coordinates of the points to locate.

    Returns:
        Whether they are between the ends, and their distance to the right of the middle line.
    """
    cos, sin = jnp.cos(headings), jnp.sin(headings)
    since = cos[0] * (y - points[0, 1]) - sin[0] * (x - points[0, 0])
    until = sin[1] * (x - points[1, 0]) - cos[1] * (y - points[1, 1])
    fraction = since / jnp.where(since + until > 0, since + until, 1)
    right_x, right_y = (ends[0] + fraction * (ends[1] - ends[0]) for ends in (cos, sin))
    middle_x, middle_y = (ends[0] + fraction * (ends[1] - ends[0]) for ends in points.T)
    lateral = (x - middle_x) * right_x + (y - middle_y) * right_y
    return (since >= 0) & (until >= 0), lateral / (right_x**2 + right_y**2)


def _texel(tile: jax.Array, kerb: jax.Array, lateral: jax.Array) -> jax.Array:
    """Return texels, uint16, at distances `lateral` to the right of the middle line.

    Args:
        tile: number of the tile.
        kerb: -1, 0 or 1, as in `Track`.
        lateral: distances, float.
    """
    beside = (kerb != 0) & (jnp.sign(lateral) == kerb)
    outer = HALF_WIDTH + jnp.where(beside, KERB_WIDTH, 0)
    coverage = jnp.clip(0.5 + (outer - jnp.abs(lateral)) / EDGE, 0, 1)
    on_kerb = beside & (jnp.abs(lateral) > HALF_WIDTH)
    levels = jnp.rint(COVERAGES * coverage).astype(jnp.uint16)
    entry = (2 * tile + on_kerb).astype(jnp.uint16)
    return jnp.where(levels > 0, (levels << COVERAGE_SHIFT) | entry, 0).astype(jnp.uint16)
