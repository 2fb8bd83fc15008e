"""Closed tracks for the car: random ones, drawn inside a program, and ones from given points.

Gymnasium's CarRacing-v3 (gymnasium.farama.org/environments/box2d/car_racing) after Klimov (2016):
twelve checkpoints around a circle, and a walk of short steps that turns towards each in turn, lap
after lap. A lap of it that closes is the track; a walk without one is drawn again. Lengths are in
the units of the simulator's world.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.errors import UserError

SCALE = 6.0
RADIUS = 900 / SCALE  # radius of the circle around which checkpoints lie
PLAYFIELD = 2000 / SCALE  # half the side of the field; beyond it a race is lost
DETAIL = 21 / SCALE  # a step of the walk, the length of a tile
TURN_RATE = 0.31  # rad, largest turn of one step
HALF_WIDTH = 40 / SCALE  # half the width of the road
KERB_WIDTH = 8 / SCALE
KERB_RUN = 4  # steps of a turn to one side that make a kerb

SHARP_TURN = 0.2 * TURN_RATE  # rad per step, least turn that has a kerb
MAX_STEP = 3 * DETAIL  # largest distance between neighbouring points of a given track
MIN_STEP = 1e-3  # distance below which two points count as one

CHECKPOINTS = 12
WALK = 2500  # steps of a walk at most
LAPS = 4  # a walk ends in the lap after these

TILES = 400
"""Capacity of a track in tiles: of 2,000 of Gymnasium's tracks the longest has 356."""
EXTENT = 256.0
"""Half the side of the square that holds a track's road: the farthest of those 2,000 reached 250.
"""


class Trail(NamedTuple):
    """Steps of a walk, or of the lap that was cut out of it: arrays [steps]; size: their number.

    alpha: rad, seen from the middle; heading: rad, 0 where the road runs along +y; x, y.
    """

    alpha: jax.Array
    heading: jax.Array
    x: jax.Array
    y: jax.Array
    size: jax.Array


class Track(NamedTuple):
    """A closed road of `size` tiles, the others being empty; tile i ends at point i.

    points: float [TILES, 2], on the middle line.
    headings: float [TILES], rad, 0 where the road runs along +y.
    corners: float [TILES, 4, 2], of the tiles, clockwise.
    kerbs: int [TILES], 0, or the side on which a tile has one (-1 left, 1 right, seen in the
        direction of the drive).
    size: int [], number of tiles.
    """

    points: jax.Array
    headings: jax.Array
    corners: jax.Array
    kerbs: jax.Array
    size: jax.Array


def random_track(key: jax.Array) -> Track:
    """Draw walks until one has a lap that closes, which about 19 of 20 do, and return its track."""

    def walked(key: jax.Array) -> tuple[Trail, jax.Array]:
        return closed_lap(walk(*checkpoints(jax.random.uniform(key, (CHECKPOINTS, 2)))))

    def again(carry: tuple[jax.Array, Trail, jax.Array]) -> tuple[jax.Array, Trail, jax.Array]:
        key, own = jax.random.split(carry[0])
        return key, *walked(own)

    key, own = jax.random.split(key)
    _, lap, _ = lax.while_loop(lambda carry: ~carry[2], again, (key, *walked(own)))
    return pave(lap)


def checkpoints(noise: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return alpha, x and y [12] of the checkpoints. noise [12, 2]: uniform from 0 to 1.

    Each lies in its own twelfth of the circle, between a third of the radius and all of it; the
    first and the last, between which the race begins, at the beginning of theirs and farther out.
    """
    twelfth = 2 * math.pi / CHECKPOINTS
    number = jnp.arange(CHECKPOINTS)
    ends = (number == 0) | (number == CHECKPOINTS - 1)
    alpha = twelfth * (number + jnp.where(ends, 0, noise[:, 0]))
    radius = jnp.where(ends, 1.5 * RADIUS, RADIUS * (1 + 2 * noise[:, 1]) / 3)
    return alpha, radius * jnp.cos(alpha), radius * jnp.sin(alpha)


def walk(alphas: jax.Array, xs: jax.Array, ys: jax.Array) -> Trail:
    """Walk from the first checkpoint towards one after the other, for five laps or `WALK` steps."""
    number = jnp.arange(CHECKPOINTS, dtype=jnp.int32)

    def step(at: Any, _: None) -> tuple[Any, jax.Array]:
        x, y, beta, aim, laps, far_side, steps = at
        alpha = jnp.arctan2(y, x)
        crossed = far_side & (alpha > 0)
        far_side = (far_side & ~crossed) | (alpha < 0)
        going = laps <= LAPS
        laps = laps + crossed
        alpha = jnp.where(alpha < 0, alpha + 2 * jnp.pi, alpha)
        # Aim at the first checkpoint that is still ahead, from the current aim on, else the
        # next lap's.
        aim = jnp.min(jnp.where((number >= aim) & (alpha <= alphas), number, CHECKPOINTS))
        alpha = jnp.where(aim == CHECKPOINTS, alpha - 2 * jnp.pi, alpha)
        aim = aim % CHECKPOINTS
        side = (jnp.cos(beta) * (xs[aim] - x) + jnp.sin(beta) * (ys[aim] - y)) * SCALE
        x, y = x - DETAIL * jnp.sin(beta), y + DETAIL * jnp.cos(beta)
        whole_turns = (jnp.abs(beta - alpha) - 1.5 * jnp.pi) / (2 * jnp.pi)
        beta = beta - jnp.sign(beta - alpha) * 2 * jnp.pi * jnp.maximum(jnp.ceil(whole_turns), 0)
        turn = jnp.minimum(TURN_RATE, jnp.abs(0.001 * side))
        turned = beta - jnp.where(jnp.abs(side) > 0.3, jnp.sign(side) * turn, 0)
        seen = jnp.stack([alpha, (beta + turned) / 2, x, y])
        return (x, y, turned, aim, laps, far_side, steps + going), seen

    zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
    start = 1.5 * RADIUS + zero, zero, zero, none, none, jnp.zeros((), bool), none
    end, seen = lax.scan(step, start, None, WALK)
    return _trail(seen.T, end[-1])


def _trail(columns: jax.Array, size: jax.Array) -> Trail:
    """Return the trail with alpha, heading, x and y as rows of [4, steps]."""
    return Trail(columns[0], columns[1], columns[2], columns[3], size)


def closed_lap(trail: Trail) -> tuple[Trail, jax.Array]:
    """Return the last whole lap of a walk, and whether it closes and fits into a track."""
    start = -math.pi / CHECKPOINTS
    step = jnp.arange(WALK)
    passes = (trail.alpha > start) & (jnp.roll(trail.alpha, 1) <= start)
    passes &= (step > 0) & (step < trail.size)
    last = jnp.max(jnp.where(passes, step, -1))
    first = jnp.max(jnp.where(passes & (step < last), step, -1))
    count = last - 1 - first
    columns = jnp.pad(jnp.stack(trail[:4]), ((0, 0), (0, TILES)))
    cut = lax.dynamic_slice_in_dim(columns, jnp.maximum(first, 0), TILES, axis=1)
    lap = _trail(jnp.where(jnp.arange(TILES) < count, cut, 0), count)
    gap = jnp.stack([lap.x[0] - lap.x[count - 1], lap.y[0] - lap.y[count - 1]])
    across = jnp.stack([jnp.cos(lap.heading[0]), jnp.sin(lap.heading[0])])
    glued = jnp.linalg.norm(across * gap) <= DETAIL
    reach = jnp.maximum(jnp.abs(lap.x), jnp.abs(lap.y)).max() + HALF_WIDTH + KERB_WIDTH
    return lap, (first >= 0) & glued & (count <= TILES) & (reach < EXTENT)


def pave(lap: Trail) -> Track:
    """Return the track of a lap: the tiles between its points, and which of them have kerbs."""
    points = jnp.stack([lap.x, lap.y], axis=1)
    right = jnp.stack([jnp.cos(lap.heading), jnp.sin(lap.heading)], axis=1)
    before = _neighbour(lap.size, -1)
    left_end, right_end = points - HALF_WIDTH * right, points + HALF_WIDTH * right
    corners = jnp.stack([left_end, right_end, right_end[before], left_end[before]], axis=1)
    used = jnp.arange(TILES) < lap.size
    corners = jnp.where(used[:, None, None], corners, 0)
    return Track(points, lap.heading, corners, find_kerbs(lap.heading, lap.size), lap.size)


def find_kerbs(headings: jax.Array, count: jax.Array) -> jax.Array:
    """Return on which side each tile has a kerb: -1, 0 or 1 [TILES].

    Kerbs are in sharp turns and three tiles before. Turns that lead over the start have none, but
    three more tiles before them do: Gymnasium's loop goes through the tiles once and reads marks
    that it has itself just set.
    """
    turns = headings - headings[_neighbour(count, -1)]
    used = jnp.arange(TILES) < count
    sharp, sides = used, jnp.zeros(TILES)
    for back in range(KERB_RUN):
        turn = turns[_neighbour(count, -back)]
        sharp = sharp & (jnp.abs(turn) > SHARP_TURN)
        sides = sides + jnp.sign(turn)
    kerb = sharp & (jnp.abs(sides) == KERB_RUN)
    marked = kerb
    for ahead in range(1, KERB_RUN):
        over_start = jnp.arange(TILES) + ahead >= count
        marked = marked | (over_start & kerb[_neighbour(count, ahead)])
    spread = marked
    for ahead in range(1, KERB_RUN):
        spread = spread | marked[_neighbour(count, ahead)]
    return jnp.where(spread & used, -jnp.sign(turns), 0).astype(jnp.int32)


def _neighbour(count: jax.Array, by: int) -> jax.Array:
    """Return the number of the tile that is `by` ahead of each, around the track [TILES]."""
    return (jnp.arange(TILES) + by) % count


def given_track(
    points: np.ndarray, headings: np.ndarray | None = None, *, crossing: bool = False
) -> Track:
    """Return a track through given points, in the order of the drive, the first of them the start.

    Args:
        points: float [n, 2]. Points about `DETAIL` apart make tiles as Gymnasium's.
        headings: float [n], rad, 0 where the road runs along +y, counter-clockwise; by default from
            each point's neighbours.
        crossing: whether the track may cross itself, as one in thirty of Gymnasium's own does.

    Raises:
        UserError: there are too few or too many points, points are not finite, in one place, too
            far apart or out of the map, or the track crosses itself and may not.
    """
    points = np.asarray(points, float)
    check_points(points)
    crossed = None if crossing else find_crossing(points)
    if crossed is not None:
        raise UserError(
            f"The track crosses itself: the step from point {crossed[0]} meets the one from point "
            f"{crossed[1]}. Move the points, or allow it with crossing=True."
        )
    if headings is None:
        along = np.roll(points, -1, 0) - np.roll(points, 1, 0)
        headings = np.unwrap(np.arctan2(-along[:, 0], along[:, 1]))
    headings = np.asarray(headings, float)
    if headings.shape != (len(points),) or not np.isfinite(headings).all():
        raise UserError(
            f"A track's headings must be {len(points)} finite numbers, one per point, but have the "
            f"shape {headings.shape}."
        )
    columns = np.zeros((4, TILES))
    columns[1:, : len(points)] = headings, *points.T
    return pave(_trail(jnp.asarray(columns), jnp.asarray(len(points))))


def check_points(points: np.ndarray) -> None:
    """Raise UserError where points [n, 2] are no track: see `given_track`."""
    if points.ndim != 2 or points.shape[1] != 2 or not 3 <= len(points) <= TILES:
        raise UserError(
            f"A track's points must have the shape [n, 2] with n from 3 to {TILES}, but have "
            f"{list(points.shape)}: leave out points, or add some."
        )
    reach = EXTENT - HALF_WIDTH - KERB_WIDTH
    outside = np.flatnonzero(~(np.abs(points) < reach).all(1))
    if outside.size:
        raise UserError(
            f"Point {outside[0]} of the track is at {points[outside[0]].tolist()}: its coordinates "
            f"must be finite and within {reach:.0f} of the middle."
        )
    lengths = np.linalg.norm(np.roll(points, -1, 0) - points, axis=1)
    odd = np.flatnonzero((lengths < MIN_STEP) | (lengths > MAX_STEP))
    if odd.size:
        raise UserError(
            f"From point {odd[0]} of the track to the next it is {lengths[odd[0]]:.3g}: it must be "
            f"more than 0 and at most {MAX_STEP:.1f}, from the last point to the first too."
        )


def find_crossing(points: np.ndarray) -> tuple[int, int] | None:
    """Return the first two sides of a closed polygon [n, 2] that meet, neighbours aside, if any."""
    ends = np.roll(points, -1, 0)

    def left_of(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Return 1 where p (a column each) is left of the line from a to b (a row each), -1 where
        right.
        """
        along, to = (b - a)[:, None], p[None] - a[:, None]
        return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])

    sides = left_of(points, ends, points) * left_of(points, ends, ends)
    number = np.arange(len(points))
    apart = (number[:, None] - number) % len(points)
    neighbours = (apart <= 1) | (apart == len(points) - 1)
    # Two sides that lie on one line, 0 and 0, do not cross.
    meet = (sides <= 0) & (sides.T <= 0) & (sides + sides.T < 0)
    crossings = np.argwhere(meet & ~neighbours)
    return (int(crossings[0, 0]), int(crossings[0, 1])) if len(crossings) else None
