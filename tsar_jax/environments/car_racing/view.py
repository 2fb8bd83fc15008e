"""Camera view of the race from above: Gymnasium's frames, computed pixel by pixel.

Gymnasium draws polygons on 1000 x 800 points and averages them down to 96 x 96 pixels; here the
same scene is looked up for every pixel, and what is small, the car and the instruments, averaged
over it. Levels are 0 to 255; a pixel is one packed number until the image is finished.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.environments.car_racing.dynamics import (
    HULL,
    SIZE,
    WHEEL_HALF_WIDTH,
    WHEEL_RADIUS,
    Car,
    rotate,
)
from tsar_jax.environments.car_racing.road_map import (
    COVERAGE_SHIFT,
    COVERAGES,
    MOST_TILES,
    SIDE,
    TEXEL,
)
from tsar_jax.environments.car_racing.track import EXTENT, PLAYFIELD, SCALE, TILES

WIDTH, HEIGHT = 1000, 800  # points of Gymnasium's window
CAR_X, CAR_Y = WIDTH / 2, HEIGHT * 3 / 4  # the car's place in it, from the upper left
CAR_REACH = 30, 46, 42  # points to either side, ahead and behind, that hold the car
ZOOM, FAR_ZOOM = 2.7 * SCALE, 0.1 * SCALE  # points per m, and at the start
BAR_TOP = HEIGHT * 7 / 8  # top of the bar of instruments
CELL_X, CELL_Y = WIDTH / 40, HEIGHT / 40  # cell of the grid on which they lie
LAWN = PLAYFIELD / 20  # side of a square of the grass's pattern

GRASS, LIGHT_GRASS = (102.0, 204.0), (102.0, 230.0)  # red and blue, green
ROAD = 102.0, 104.0, 107.0  # of one tile, the next, and the one after it
HULL_RED, STRIPE = 204.0, 77.0
INSTRUMENT_COLOURS = np.array(
    [[255, 255, 255], *[[0, 0, 255]] * 2, *[[51, 0, 255]] * 2, [0, 255, 0], [255, 0, 0]],
    np.float32,
)
"""Colours of speed, the four wheels, steering and turning [7, 3]."""
DIGITS_LEFT, DIGITS_TOP, DIGIT_ADVANCE, DIGIT_WIDTH, DIGIT_HEIGHT, STROKE = 15, 733, 23, 19, 30, 4
SEGMENTS = np.array(
    [
        [1, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 1],
        [1, 1, 1, 1, 0, 0, 1],
        [0, 1, 1, 0, 0, 1, 1],
        [1, 0, 1, 1, 0, 1, 1],
        [1, 0, 1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 1],
    ],
    np.float32,
)
"""Lit segments of the digits and a minus: top, upper right, lower right, bottom, lower left, upper
left, middle. At the image's size they look as Gymnasium's letters do.
"""
SUBSAMPLES = 5
"""Samples per pixel and axis, for the car."""
GROWTH = 0.5
"""Points by which pygame draws shapes larger, on the average, to each side: their corners are cut
to whole points, which are then all filled.
"""
LOSS = 2.0
"""Loss of any level in the integers of pygame's scaling."""

Level = jax.Array
"""Intensities of one colour, float, 0 to 255."""

Road = tuple[jax.Array, jax.Array]
"""Maps [n, SIDE, SIDE] of `draw_map`, and the number of the one to look at."""


def render(
    road: Road,
    touched: jax.Array,
    car: Car,
    episode_return: jax.Array,
    seconds: jax.Array,
    side: int,
    *,
    zooms: bool,
) -> jax.Array:
    """Return the image uint8 [side, side, 3] of a race.

    Args:
        road: maps, and the number of the race's own.
        touched: bool [TILES], tiles that have lost their shade.
        car: the car.
        episode_return: the score.
        seconds: time since the start.
        side: pixels.
        zooms: whether the first second zooms in from far above, as Gymnasium's does.
    """
    zoom: Any = ZOOM
    if zooms:
        zoom = FAR_ZOOM + (ZOOM - FAR_ZOOM) * jnp.minimum(seconds, 1)
    # Without these barriers XLA recomputes the pixels for every use of them.
    image = lax.optimization_barrier(ground(road, touched, car, zoom, side))
    image = lax.optimization_barrier(with_car(image, car, zoom, side))
    image = with_instruments(image, car, episode_return, side)
    return lax.bitcast_convert_type(image, jnp.uint8)[..., :3]


def pack(red: Level, green: Level, blue: Level) -> jax.Array:
    """Pack a pixel's colours into one int32.

    With a computation for each colour, XLA would repeat what they have in common.
    """
    parts = [(level + 0.5).astype(jnp.int32) for level in (red, green, blue)]
    return parts[0] | (parts[1] << 8) | (parts[2] << 16)


def unpack(pixels: jax.Array) -> tuple[Level, Level, Level]:
    """Return the levels of red, green and blue."""
    red, green, blue = ((pixels >> shift & 255).astype(jnp.float32) for shift in (0, 8, 16))
    return red, green, blue


def ground(road: Road, touched: jax.Array, car: Car, zoom: Any, side: int) -> jax.Array:
    """Return grass, road and kerbs at the middle of every pixel; packed, [side, side]."""
    cos, sin = jnp.cos(car.angle) / zoom, jnp.sin(car.angle) / zoom
    position = car.position
    frame = jnp.stack([cos, -sin, position[0], sin, cos, position[1]]).reshape(2, 3)
    x, y = product(frame, _pixels(side)).reshape(2, side, side)
    maps, number = road
    texels = _take(maps, (number, _texel_of(y), _texel_of(x))).astype(jnp.int32)
    # Shifts and products instead of divisions, which a CPU does not vectorise.
    coverage = (texels >> COVERAGE_SHIFT).astype(jnp.float32) * (1 / COVERAGES)
    tile, on_kerb = (texels >> 1) & (MOST_TILES - 1), texels & 1
    third = tile - 3 * (tile * (2**16 // 3 + 1) >> 16)
    plain = _take(touched, jnp.minimum(tile, TILES - 1)) | (third == 0)
    shade = jnp.where(plain, ROAD[0], jnp.where(third == 1, ROAD[1], ROAD[2]))
    red = jnp.where(on_kerb == 1, 255.0, shade)
    other = jnp.where(on_kerb == 1, jnp.where((tile & 1) == 0, 255.0, 0.0), shade)
    light = ((_lawn_of(x) | _lawn_of(y)) & 1) == 0
    field = jnp.maximum(jnp.abs(x), jnp.abs(y)) <= PLAYFIELD

    def blend(lawn: Any, paint: Level) -> Level:
        grass = jnp.where(field, lawn, 0.0).astype(jnp.float32)
        return grass + coverage * (paint - grass)

    green = jnp.where(light, LIGHT_GRASS[1], GRASS[1])
    levels = blend(GRASS[0], red), blend(green, other), blend(GRASS[0], other)
    return pack(*(jnp.maximum(level - LOSS, 0) for level in levels))


def product(frame: jax.Array, places: jax.Array | np.ndarray) -> jax.Array:
    """Return frame [n, 3] times places [3, m].

    As a product XLA computes a frame's sines and cosines once and not for every place; HIGHEST
    because accelerators round products by default.
    """
    return jnp.matmul(frame.astype(jnp.float32), places, precision=lax.Precision.HIGHEST)


@functools.cache
def _pixels(side: int) -> np.ndarray:
    """Return for each pixel the points to the right of the car's middle, the points ahead, and 1:
    [3, n].
    """
    middles = (np.arange(side) + 0.5) / side
    right, ahead = np.meshgrid(middles * WIDTH - CAR_X, CAR_Y - middles * HEIGHT)
    return np.stack([right.ravel(), ahead.ravel(), np.ones(side**2)]).astype(np.float32)


def _take(values: jax.Array, places: Any) -> jax.Array:
    return values.at[places].get(mode="promise_in_bounds")


def _texel_of(place: jax.Array) -> jax.Array:
    """Return the number of the map's row or column that places are in, or of the nearest one."""
    return jnp.clip(((place + EXTENT) * (1 / TEXEL)).astype(jnp.int32), 0, SIDE - 1)


def _lawn_of(place: jax.Array) -> jax.Array:
    """Return the number of the row or column of lawns that places are in, from far outside."""
    return (place * (1 / LAWN) + 64).astype(jnp.int32)


def with_car(image: jax.Array, car: Car, zoom: Any, side: int) -> jax.Array:
    """Draw hull, wheels and stripes over the pixels that can hold them; packed, [side, side]."""
    rows, columns, x, y = _car_samples(side)
    x, y = x / zoom, y / zoom
    hull = sum(_inside(x, y, np.array(part) * SIZE, GROWTH / zoom) for part in HULL) > 0
    wheels, stripes = _wheels(car, x, y, GROWTH / zoom)
    hull_share, stripe_share, ground_share = (
        jnp.mean(samples, axis=0, dtype=jnp.float32).reshape(len(rows), len(columns))
        for samples in (hull, stripes & ~hull, ~(hull | wheels))
    )
    corner = rows[0], columns[0]
    below = lax.dynamic_slice(image, corner, hull_share.shape)
    stripes = (STRIPE - LOSS) * stripe_share
    red, green, blue = (ground_share * level + stripes for level in unpack(below))
    red = red + (HULL_RED - LOSS) * hull_share
    return lax.dynamic_update_slice(image, pack(red, green, blue), corner)


@functools.cache
def _car_samples(side: int) -> tuple[range, range, np.ndarray, np.ndarray]:
    """Return rows and columns of the pixels that can hold the car, and where samples of them lie.

    Returns:
        Rows, columns, and x and y [samples of a pixel, pixels]: points to the right of the car's
        middle and ahead.
    """
    per_x, per_y = side / WIDTH, side / HEIGHT
    beside, before, behind = CAR_REACH
    rows = range(math.floor((CAR_Y - before) * per_y), math.ceil((CAR_Y + behind) * per_y))
    columns = range(math.floor((CAR_X - beside) * per_x), math.ceil((CAR_X + beside) * per_x))
    within = (np.arange(SUBSAMPLES) + 0.5) / SUBSAMPLES
    shape = SUBSAMPLES, SUBSAMPLES, len(rows), len(columns)
    x = (np.array(columns) + within[:, None, None]) / per_x - CAR_X
    y = CAR_Y - (np.array(rows)[:, None] + within[:, None, None, None]) / per_y
    flat = SUBSAMPLES**2, -1
    return (
        rows,
        columns,
        np.broadcast_to(x, shape).reshape(flat).astype(np.float32),
        np.broadcast_to(y, shape).reshape(flat).astype(np.float32),
    )


def _inside(x: Any, y: Any, corners: np.ndarray, growth: Any) -> Any:
    """Return whether places are in a convex polygon [n, 2], drawn clockwise, or within `growth` of
    it.
    """
    inside = True
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
        outward = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        inside = inside & (outward <= growth * math.hypot(bx - ax, by - ay))
    return inside


def _wheels(car: Car, x: Any, y: Any, growth: Any) -> tuple[jax.Array, jax.Array]:
    """Return which places, in the hull's own frame, lie in a wheel, and which in its lighter
    stripe.
    """
    centres = rotate(-car.angle, car.wheel_centres - car.position)
    cos, sin = jnp.cos(car.steering), jnp.sin(car.steering)
    across = jnp.stack([cos, sin, -cos * centres[:, 0] - sin * centres[:, 1]])
    along = jnp.stack([-sin, cos, sin * centres[:, 0] - cos * centres[:, 1]])
    low, high = _stripe(car.phase)
    middle, half = (high + low) / 2, (high - low) / 2
    on_stripe = (along - jnp.stack([0 * middle, 0 * middle, middle])) / (half + growth)
    wheel = [across / (WHEEL_HALF_WIDTH + growth), along / (WHEEL_RADIUS + growth)]
    frame = jnp.concatenate([*wheel, on_stripe], axis=1).T
    places = jnp.stack([x.ravel(), y.ravel(), jnp.ones(x.size)])
    inside = (jnp.abs(product(frame, places)) <= 1).reshape(3, 4, *x.shape)
    wheels = inside[0] & inside[1]
    return wheels.any(0), (wheels & inside[2]).any(0)


def _stripe(phase: jax.Array) -> tuple[jax.Array, ...]:
    """Return the ends [4] of the stripe around a wheel as seen from above, m ahead of the axle.

    A stripe on the lower side is put far ahead of the axle.
    """
    ends = jnp.stack([phase, phase + 1.2])
    below = jnp.sin(ends) > 0
    places = WHEEL_RADIUS * jnp.where(below, jnp.sign(jnp.cos(ends)), jnp.cos(ends))
    return tuple(jnp.where(below.all(0), 2.0, end) for end in (places.min(0), places.max(0)))


def with_instruments(image: jax.Array, car: Car, episode_return: jax.Array, side: int) -> jax.Array:
    """Draw a black bar at the bottom: score, speed, rolling of wheels, steering, turning of the
    hull.
    """
    top = math.floor(BAR_TOP * side / HEIGHT)
    edges_x = (np.arange(side + 1) * WIDTH / side).astype(np.float32)
    edges_y = (np.arange(top, side + 1) * HEIGHT / side).astype(np.float32)
    lefts, rights, tops, bottoms = _rectangles(car)
    digits = _digits()
    beside = jnp.concatenate(
        [_shares(digits[0], digits[1], edges_x), _shares(lefts, rights, edges_x)]
    )
    above = jnp.concatenate(
        [_shares(digits[2], digits[3], edges_y), _shares(tops, bottoms, edges_y)]
    )
    lit = _score(episode_return)
    white = jnp.broadcast_to(255 * lit[:, None], (lit.size, 3))
    colours = jnp.concatenate([white, jnp.asarray(INSTRUMENT_COLOURS)])
    ground_share = np.clip((BAR_TOP - edges_y[:-1, None]) * side / HEIGHT, 0, 1)
    levels = [
        jnp.minimum(ground_share * below + (above * colour[:, None]).T @ beside, 255 - LOSS)
        for below, colour in zip(unpack(image[top:]), colours.T, strict=True)
    ]
    return lax.dynamic_update_slice(image, pack(*levels), (top, 0))


def _rectangles(car: Car) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return left, right, top and bottom of the instruments [7], in points of the window."""
    speed = jnp.sqrt(jnp.square(car.velocity).sum())
    upright = jnp.concatenate([0.02 * speed[None], 0.01 * car.rolling])
    level = jnp.stack([-10 * car.steering[0], -0.8 * car.spin])
    place = np.array([5, 7, 8, 9, 10])
    begin, floor = np.array([20.0, 30.0]), HEIGHT - CELL_Y
    left = jnp.concatenate([place, begin + jnp.minimum(level, 0)]) * CELL_X
    right = jnp.concatenate([place + 1, begin + jnp.maximum(level, 0)]) * CELL_X
    upper, lower = np.full(2, HEIGHT - 4 * CELL_Y), np.full(2, HEIGHT - 2 * CELL_Y)
    top = jnp.concatenate([floor - CELL_Y * jnp.maximum(upright, 0), upper])
    bottom = jnp.concatenate([floor - CELL_Y * jnp.minimum(upright, 0), lower])
    # pygame fills whole points, the last one too; Gymnasium leaves out what shows zero.
    visible = jnp.abs(jnp.concatenate([upright, level])) > 1e-4
    left, top = jnp.floor(left), jnp.floor(top)
    return left, jnp.where(visible, jnp.floor(right) + 1, left), top, jnp.floor(bottom) + 1


def _digits() -> np.ndarray:
    """Return left, right, top and bottom of the segments of four digits [4, 28]."""
    right, lower = DIGIT_WIDTH - STROKE, DIGIT_HEIGHT - STROKE
    middle = lower / 2
    segments = np.array(
        [
            (0, DIGIT_WIDTH, 0, STROKE),
            (right, DIGIT_WIDTH, 0, DIGIT_HEIGHT / 2),
            (right, DIGIT_WIDTH, DIGIT_HEIGHT / 2, DIGIT_HEIGHT),
            (0, DIGIT_WIDTH, lower, DIGIT_HEIGHT),
            (0, STROKE, DIGIT_HEIGHT / 2, DIGIT_HEIGHT),
            (0, STROKE, 0, DIGIT_HEIGHT / 2),
            (0, DIGIT_WIDTH, middle, middle + STROKE),
        ]
    )
    corner = np.array([DIGITS_LEFT] * 2 + [DIGITS_TOP] * 2)
    places = np.arange(4)[:, None, None] * np.array([DIGIT_ADVANCE] * 2 + [0] * 2)
    return (segments + corner + places).reshape(-1, 4).T.astype(np.float32)


def _score(episode_return: jax.Array) -> jax.Array:
    """Return the lit segments of four digits that show a score, or a minus and three: [28]."""
    points = jnp.rint(jnp.abs(episode_return)).astype(jnp.int32)
    digits = points // np.array([1000, 100, 10, 1]) % 10
    minus = (episode_return < 0) & (np.arange(4) == 0)
    return jnp.asarray(SEGMENTS)[jnp.where(minus, 10, digits)].reshape(-1)


def _shares(begin: Any, end: Any, edges: np.ndarray) -> jax.Array:
    """Return the fraction of m intervals between begin and end [n]: [n, m]; edges [m + 1]."""
    low = jnp.maximum(begin[:, None], edges[:-1])
    high = jnp.minimum(end[:, None], edges[1:])
    return (jnp.maximum(high - low, 0) / (edges[1] - edges[0])).astype(jnp.float32)
