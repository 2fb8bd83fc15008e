"""Tracks: the same checkpoints give Gymnasium's track, tile for tile, and bad ones are refused."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from tsar_jax.environments.car_racing.road_map import (
    COVERAGE_SHIFT,
    COVERAGES,
    MOST_TILES,
    TEXEL,
    draw_map,
)
from tsar_jax.environments.car_racing.track import (
    CHECKPOINTS,
    DETAIL,
    EXTENT,
    HALF_WIDTH,
    KERB_WIDTH,
    TILES,
    checkpoints,
    closed_lap,
    find_crossing,
    given_track,
    pave,
    random_track,
    walk,
)
from tsar_jax.errors import UserError

ORACLES = 40


@functools.cache
def builder():
    """An environment that builds tracks and never puts a car on one."""
    return gymnasium.make("CarRacing-v3").unwrapped


def gymnasiums(seed):
    """What Gymnasium makes of a seed: its track [n, 4] or None, the tiles' corners, and kerbs."""
    env = builder()
    for tile in env.road or ():
        env.world.DestroyBody(tile)
    env.np_random, env.road_poly = np.random.default_rng(seed), []
    made = env._create_track()
    kerbs = [poly for poly, colour in env.road_poly if isinstance(colour, tuple)]
    tiles = [poly for poly, colour in env.road_poly if not isinstance(colour, tuple)]
    return np.array(env.track) if made else None, np.array(tiles), np.array(kerbs)


@pytest.fixture(scope="module")
def follow():
    """Noise [CHECKPOINTS, 2] -> lap, whether it closes, and its track."""

    def made(noise):
        lap, closes = closed_lap(walk(*checkpoints(noise)))
        return lap, closes, pave(lap)

    return jax.jit(made)


def test_from_the_same_noise_comes_gymnasiums_track(follow) -> None:
    closed = 0
    for seed in range(ORACLES):
        track, tiles, kerbs = gymnasiums(seed)
        noise = np.random.default_rng(seed).uniform(size=(CHECKPOINTS, 2))
        with jax.enable_x64(True):
            lap, closes, paved = jax.device_get(follow(noise))
        assert closes == (track is not None)
        if track is None:
            continue
        closed += 1
        assert lap.size == len(track)
        ours = np.stack(lap[:4], 1)
        np.testing.assert_allclose(ours[: len(track)], track, atol=1e-9)
        assert not ours[len(track) :].any()
        np.testing.assert_allclose(paved.corners[: len(track)], tiles, atol=1e-9)
        sides = paved.kerbs[paved.kerbs != 0]
        right = np.stack([np.cos(track[:, 1]), np.sin(track[:, 1])], 1)[
            paved.kerbs[: len(track)] != 0
        ]
        middle = track[:, 2:][paved.kerbs[: len(track)] != 0]
        assert len(sides) == len(kerbs)
        if len(kerbs):
            inner = middle + HALF_WIDTH * sides[:, None] * right
            np.testing.assert_allclose(kerbs[:, 0], inner, atol=1e-9)
            outer = middle + (HALF_WIDTH + KERB_WIDTH) * sides[:, None] * right
            np.testing.assert_allclose(kerbs[:, 1], outer, atol=1e-9)
    assert closed > ORACLES / 2


def curvatures(headings):
    return np.abs(np.diff(headings)) / DETAIL


def test_random_tracks_are_distributed_as_gymnasiums() -> None:
    """Tiles, lengths and mean curvatures of 200 tracks each (Kolmogorov and Smirnov's test)."""
    theirs = []
    seed = 10_000
    while len(theirs) < 200:
        track, _, _ = gymnasiums(seed)
        seed += 1
        if track is not None:
            theirs.append(track)
    keys = jax.random.split(jax.random.key(3), 200)
    tracks = jax.device_get(jax.jit(jax.vmap(random_track))(keys))
    ours = [
        (points[:count], headings[:count])
        for points, headings, count in zip(tracks.points, tracks.headings, tracks.size, strict=True)
    ]

    def same(of_ours, of_theirs):
        assert ks_2samp(of_ours, of_theirs).pvalue > 1e-3

    def length(points):
        return np.linalg.norm(np.roll(points, -1, 0) - points, axis=1).sum()

    same([len(points) for points, _ in ours], [len(track) for track in theirs])
    same([length(points) for points, _ in ours], [length(track[:, 2:]) for track in theirs])
    same(
        [curvatures(headings).mean() for _, headings in ours],
        [curvatures(track[:, 1]).mean() for track in theirs],
    )
    assert len({len(points) for points, _ in ours}) > 20


def test_a_track_that_is_given_is_that_track() -> None:
    track, tiles, _ = gymnasiums(1)
    made = given_track(track[:, 2:], track[:, 1])
    assert made.size == len(track)
    np.testing.assert_allclose(made.corners[: len(track)], tiles, atol=1e-4)
    by_points = given_track(track[:, 2:])
    turned = by_points.headings[: len(track)] - track[:, 1]
    assert np.abs((np.asarray(turned) + np.pi) % (2 * np.pi) - np.pi).max() < 0.35


def circle(n=100, radius=60.0):
    angle = 2 * np.pi * np.arange(n) / n
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def eight(n=150, radius=70.0):
    angle = 2 * np.pi * np.arange(n) / n + 0.01
    return radius * np.stack([np.sin(angle), np.sin(angle) * np.cos(angle)], 1)


def test_a_track_that_crosses_itself_is_refused_unless_it_may() -> None:
    with pytest.raises(UserError, match=r"crosses itself: the step from point \d+ meets .* \d+"):
        given_track(eight())
    assert given_track(eight(), crossing=True).size == 150


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (circle()[:2], r"n from 3 to 400, but have \[2, 2\]"),
        (circle(401, 150), r"\[401, 2\]: leave out points"),
        (np.zeros((4, 3)), r"\[4, 3\]"),
        (circle(10), "From point 0 of the track to the next it is 37.1"),
        (np.repeat(circle(), 2, axis=0), "From point 0 of the track to the next it is 0"),
        (circle() + np.array([200, 0]), r"Point 0 of the track is at \[260.0, 0.0\]"),
        (np.where(np.arange(100)[:, None] == 7, np.nan, circle()), "Point 7 of the track is at"),
        (circle()[:80], "From point 79 of the track"),
    ],
)
def test_what_is_no_track_is_refused(points, message) -> None:
    with pytest.raises(UserError, match=message):
        given_track(points)


def test_headings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="headings must be 100 finite numbers"):
        given_track(circle(), np.zeros(3))


@settings(max_examples=50, deadline=None)
@given(st.integers(5, 60), st.integers(0, 10**6))
def test_crossings_are_found_as_one_by_one(n, seed) -> None:
    points = np.random.default_rng(seed).uniform(-1, 1, (n, 2))

    def crossed(a, b, c, d):
        def side(p, q, r):
            return np.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

        return side(a, b, c) != side(a, b, d) and side(c, d, a) != side(c, d, b)

    ends = np.roll(points, -1, 0)
    pairs = [
        (i, j)
        for i in range(n)
        for j in range(i + 2, n)
        if (i, j) != (0, n - 1) and crossed(points[i], ends[i], points[j], ends[j])
    ]
    found = find_crossing(points)
    assert found in pairs if pairs else found is None


def test_the_map_shows_road_where_tiles_are() -> None:
    """Against each tile's polygon, at the middle of texels that no edge comes near."""
    track = jax.device_get(jax.jit(random_track)(jax.random.key(5)))
    texels = np.asarray(jax.jit(draw_map)(track)).astype(int)
    rng = np.random.default_rng(0)
    for tile in rng.choice(track.size, 40, replace=False):
        weights = rng.dirichlet(np.ones(4) * 3, 30)
        places = weights @ track.corners[tile]
        lateral = np.abs((places - track.points[tile]) @ _right(track.headings[tile]))
        places = places[lateral < HALF_WIDTH - 1]
        column, row = np.floor((places + EXTENT) / TEXEL).astype(int).T
        seen = texels[row, column]
        assert (seen >> COVERAGE_SHIFT == COVERAGES).all()
        shown = (seen >> 1) & (MOST_TILES - 1)
        near = np.abs(shown - tile)
        assert np.isin(np.minimum(near, track.size - near), (0, 1)).mean() > 0.9
    grass = np.linalg.norm(
        (np.argwhere(texels == 0)[::997, ::-1] + 0.5)[:, None] * TEXEL
        - EXTENT
        - track.points[: track.size],
        axis=-1,
    )
    assert grass.min() > HALF_WIDTH - 1.0


def _right(heading):
    return np.array([np.cos(heading), np.sin(heading)])


def test_tracks_keep_their_types_in_either_precision() -> None:
    for x64, dtype in ((False, jnp.float32), (True, jnp.float64)):
        with jax.enable_x64(x64):
            made = jax.eval_shape(random_track, jax.random.key(0))
            assert made.points.dtype == dtype
            assert made.corners.shape == (TILES, 4, 2)
