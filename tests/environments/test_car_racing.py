"""Races against Gymnasium's CarRacing-v3: motion, reward, ends and views."""

import functools
import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from car_oracle import SEQUENCES, drive, environment, random_actions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from tsar_jax.environments.car_racing import dynamics
from tsar_jax.environments.car_racing.contacts import outlines, touching
from tsar_jax.environments.car_racing.racing import (
    MAX_EPISODE_STEPS,
    PATIENCE,
    POLICY_SIDE,
    car_racing,
    observe,
    reset,
    reset_on_track,
    step,
)
from tsar_jax.environments.car_racing.racing import drive as squash
from tsar_jax.environments.car_racing.track import TILES, given_track

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FRAMES = 100


def load(track):
    return given_track(track[:, 2:], track[:, 1], crossing=True)


@functools.cache
def compiled(side=96):
    """Start, step and view."""
    see = functools.partial(observe, side=side)
    return (
        jax.jit(reset_on_track),
        jax.jit(step),
        jax.jit(see),
        jax.jit(functools.partial(see, zooms=True)),
    )


@functools.cache
def together(frames):
    """Races [n] and actions [n, frames, 3] -> what came of every frame."""

    def race(track, actions):
        def frame(race, action):
            race, reward, over = step(race, action)
            speed = jnp.linalg.norm(race.car.velocity)
            seen = race.car.position, race.car.angle, speed, reward, race.visited.sum(), over
            return race, seen

        return jax.lax.scan(frame, reset_on_track(track), actions)[1]

    return jax.jit(lambda tracks, actions: jax.lax.map(lambda each: race(*each), (tracks, actions)))


def ours(drives, frames):
    """Position, heading, speed, reward, visited, over [n, frames]; actions end with zeros."""
    tracks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[load(d.track) for d in drives])
    actions = np.zeros((len(drives), frames, 3), np.float32)
    for row, d in zip(actions, drives, strict=True):
        row[: len(d.actions)] = d.actions
    return jax.device_get(together(frames)(tracks, actions))


@pytest.mark.parametrize(("x64", "places"), [(False, 0.05), (True, 0.05)])
def test_a_hundred_frames_are_gymnasiums(x64, places) -> None:
    """Over 20 sequences, m, rad and m/s. Half of all are within a millimetre, which is rounding; a
    wheel on the verge of slipping makes of it up to the bounds."""
    drives = [drive(seed, FRAMES) for seed in range(SEQUENCES)]
    with jax.enable_x64(x64):
        position, heading, speed, reward, visited, _ = ours(drives, FRAMES)
    assert position.dtype == (np.float64 if x64 else np.float32)
    away = np.array([np.abs(p - d.position).max() for p, d in zip(position, drives, strict=True)])
    assert away.max() < places
    assert np.median(away) < 1e-3
    for i, d in enumerate(drives):
        np.testing.assert_allclose(heading[i], d.heading, atol=0.01)
        np.testing.assert_allclose(speed[i], d.speed, atol=0.05)
        assert np.abs(visited[i] - d.visited).max() <= 1
        assert abs(reward[i].sum() - d.reward.sum()) < 4
    exact = [np.allclose(r, d.reward, atol=1e-3) for r, d in zip(reward, drives, strict=True)]
    assert np.mean(exact) >= 0.8
    assert np.mean([d.speed.max() for d in drives]) > 20


@pytest.mark.slow
def test_a_thousand_frames_earn_as_much_as_gymnasiums() -> None:
    drives = [drive(seed, MAX_EPISODE_STEPS) for seed in range(SEQUENCES)]
    *_, reward, visited, over = ours(drives, MAX_EPISODE_STEPS)
    returns, tiles = [], []
    for i in range(SEQUENCES):
        ends = int(np.argmax(over[i])) + 1 if over[i].any() else MAX_EPISODE_STEPS
        returns.append(reward[i, :ends].sum())
        tiles.append(visited[i, ends - 1])
    theirs = [d.reward.sum() for d in drives]
    assert ks_2samp(returns, theirs).pvalue > 0.3
    assert ks_2samp(tiles, [d.visited[-1] for d in drives]).pvalue > 0.3
    assert np.median(np.abs(np.array(returns) - theirs)) < 1


def test_the_cars_masses_are_box2ds() -> None:
    env = environment()
    env.reset(seed=0)
    hull, wheel = env.car.hull, env.car.wheels[0]
    assert math.isclose(dynamics.HULL_MASS, hull.mass, rel_tol=1e-5)
    np.testing.assert_allclose(dynamics.HULL_CENTRE, hull.localCenter, atol=1e-6)
    about_origin = dynamics.HULL_INERTIA + dynamics.HULL_MASS * (dynamics.HULL_CENTRE**2).sum()
    assert math.isclose(about_origin, hull.inertia, rel_tol=1e-5)
    assert math.isclose(dynamics.WHEEL_MASS, wheel.mass, rel_tol=1e-5)
    assert math.isclose(dynamics.WHEEL_INERTIA, wheel.inertia, rel_tol=1e-5)


def test_a_race_begins_as_gymnasiums() -> None:
    env = environment()
    for seed in range(3):
        env.reset(seed=seed)
        race = jax.device_get(compiled()[0](load(np.array(env.track))))
        np.testing.assert_allclose(race.car.position, env.car.hull.position, atol=1e-4)
        assert abs(race.car.angle - env.car.hull.angle) < 1e-4
        for ours_, wheel in zip(race.car.wheel_centres, env.car.wheels, strict=True):
            np.testing.assert_allclose(ours_, wheel.position, atol=1e-4)
        assert race.visited.sum() == env.tile_visited_count
        assert math.isclose(race.due, env.reward, rel_tol=1e-5)


@functools.cache
def circle(n=60, radius=33.4):
    angle = 2 * np.pi * np.arange(n) / n
    return given_track(radius * np.stack([np.cos(angle), np.sin(angle)], 1))


def full_gas_on(race, frames=400):
    """Steps until the race is over: rewards and races."""
    rewards, over = [], False
    while not over and len(rewards) < frames:
        race, reward, over = compiled()[1](race, jnp.array([0.0, 1.0, 0.0]))
        rewards.append(float(reward))
    return rewards, race, bool(over)


def test_far_off_the_track_the_race_is_lost() -> None:
    race = compiled()[0](circle())
    away = race.car._replace(
        centre=race.car.centre + 296.5, wheel_centres=race.car.wheel_centres + 296.5
    )
    rewards, race, over = full_gas_on(race._replace(car=away))
    assert over
    assert rewards[-1] == -100
    assert not race.lap


@pytest.mark.parametrize("all_but", ["the last", "the start"])
def test_a_race_ends_with_a_lap(all_but) -> None:
    """All tiles; or the first touch of the start's after 95 % of them."""
    race, track = compiled()[0](circle()), circle()
    under = np.flatnonzero(np.asarray(race.visited))
    assert 0 in under
    visited = np.arange(TILES) < int(track.size)
    if all_but == "the start":
        visited[0] = visited[30] = False
    else:
        visited[under[-1]] = False
    raced, reward, over = compiled()[1](race._replace(visited=jnp.asarray(visited)), jnp.zeros(3))
    assert over
    assert raced.lap
    assert math.isclose(reward, race.due + 1000 / 60 - 0.1, rel_tol=1e-5)
    too_few = visited & (np.arange(TILES) % 5 != 1)
    too_few[under] = False
    _, _, over = compiled()[1](race._replace(visited=jnp.asarray(too_few)), jnp.zeros(3))
    assert not over


def test_a_policy_is_stopped_after_too_many_frames_without_reward() -> None:
    world = car_racing(side=8)
    race, moved = compiled()[0](circle()), jax.jit(world.step)
    ends = []
    for _ in range(PATIENCE + 3):
        race, _, over = moved(race, jnp.zeros(3))
        ends.append(bool(over))
    # The first frame is paid for the tiles under the car; the 21st after it is one too many.
    assert ends.index(True) == PATIENCE + 1
    assert (world.max_episode_steps, world.observation_shape, world.num_actions) == (
        1000,
        (8, 8, 3),
        3,
    )
    assert car_racing().observation_shape == (POLICY_SIDE, POLICY_SIDE, 3)


def test_an_action_that_is_not_finite_ends_the_race_with_a_reward_of_nan() -> None:
    race = compiled()[0](circle())
    raced, reward, over = compiled()[1](race, jnp.array([0.0, jnp.nan, 0.0]))
    assert over
    assert np.isnan(reward)
    assert np.isfinite(raced.car.position).all()


def test_actions_out_of_range_are_clipped() -> None:
    race = compiled()[0](circle())
    for wild, tame in (([-7.0, 3.0, -1.0], [-1.0, 1.0, 0.0]), ([2.0, -1.0, 9.0], [1.0, 0.0, 1.0])):
        for ours_, wanted in zip(
            jax.tree.leaves(compiled()[1](race, jnp.array(wild))[0].car),
            jax.tree.leaves(compiled()[1](race, jnp.array(tame))[0].car),
            strict=True,
        ):
            np.testing.assert_array_equal(ours_, wanted)


def test_outputs_become_actions_by_tanh_and_the_logistic_function() -> None:
    outputs = np.array([0.7, -2.0, 3.0])
    wanted = [np.tanh(0.7), 1 / (1 + np.exp(2)), 1 / (1 + np.exp(-3))]
    np.testing.assert_allclose(squash(jnp.asarray(outputs)), wanted, rtol=1e-6)


def in_polygon(corners, places):
    """Which places lie within a polygon, by more than the rounding of 32 bits."""
    after = np.roll(corners, -1, 0) - corners
    to = places[:, None] - corners
    return (after[:, 0] * to[..., 1] - after[:, 1] * to[..., 0] < -1e-3).all(1)


@settings(max_examples=40, deadline=None)
@given(st.floats(-12, 12), st.floats(-12, 12), st.floats(-4, 4))
def test_wheels_touch_the_tiles_that_they_lie_on(x, y, heading) -> None:
    """Against points of the wheels in the tiles' polygons, and their distances."""
    track, places = circle(), np.array([33.4 + x, y, heading], np.float32)
    car, found = touch()(track, places)
    corners = np.asarray(track.corners)[: track.size]
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 15), np.linspace(-1, 1, 25)), -1).reshape(-1, 2)
    grid = grid * [dynamics.WHEEL_HALF_WIDTH, dynamics.WHEEL_RADIUS]
    cos, sin = math.cos(heading), math.sin(heading)
    for wheel, centre in enumerate(np.asarray(car.wheel_centres)):
        turned = np.stack(
            [cos * grid[:, 0] - sin * grid[:, 1], sin * grid[:, 0] + cos * grid[:, 1]]
        )
        on_tiles = np.array([in_polygon(c, turned.T + centre).any() for c in corners])
        if on_tiles.any():
            assert found.on_road[wheel]
            assert np.asarray(found.by_wheel)[: track.size][on_tiles].all()
    far = np.linalg.norm(corners.mean(1) - np.asarray(car.position), axis=1) > 11
    assert not np.asarray(found.by_car)[: track.size][far].any()


@functools.cache
def touch():
    """A track and x, y, heading -> a car there, and what it touches."""

    def placed(track, place):
        car = dynamics.settle(dynamics.init_car(place[:2], place[2]))
        return car, touching(outlines(track), car)

    return jax.jit(placed)


def levels(image):
    return np.asarray(image).astype(float)


@functools.cache
def views():
    """Images of the same races: Gymnasium's, ours with and without the start's zoom; the frame."""
    env, rows = environment(rendered=True), []
    begin, go, see, see_zoomed = compiled()
    for seed in (3, 4):
        env.reset(seed=seed)
        race = begin(load(np.array(env.track)))
        for frame, action in enumerate(random_actions(seed, 120), 1):
            # Only the frames that are looked at are drawn.
            wanted = frame in (5, 20, 35, 49) or (frame > 50 and frame % 10 == 0)
            env._render = type(env)._render.__get__(env) if wanted else lambda mode: None
            theirs = env.step(action)[0]
            race = go(race, jnp.asarray(action))[0]
            if wanted:
                rows.append((frame, theirs, np.asarray(see(race)), np.asarray(see_zoomed(race))))
    return rows


def test_an_image_is_gymnasiums_but_for_its_edges() -> None:
    """Mean absolute difference of the levels 0 to 255, and what is road and what is grass."""
    far = [levels(theirs) - levels(image) for frame, theirs, image, _ in views() if frame > 50]
    assert np.abs(far).mean() < 0.7
    assert np.abs(far).mean((1, 2, 3)).max() < 1.0
    car, bar = np.abs(far)[:, 64:80, 43:53], np.abs(far)[:, 84:]
    assert car.mean() < 2.5
    assert bar.mean() < 3.0
    for frame, theirs, image, zoomed in views():
        if frame > 50:
            assert (_is_grass(theirs) == _is_grass(image)).mean() > 0.985
            np.testing.assert_array_equal(image, zoomed)


def _is_grass(image):
    """Of the field ahead of the car, where nothing else is."""
    field = levels(image)[:64]
    return field[..., 1] > field[..., 0] + 50


def test_the_start_zooms_as_gymnasiums() -> None:
    for frame, theirs, _, zoomed in views():
        if frame < 50:
            assert np.abs(levels(theirs) - levels(zoomed)).mean() < 2.5, frame


def test_instruments_move_with_what_they_show() -> None:
    race = compiled()[0](circle())
    see = compiled()[2]
    still = levels(see(race))[84:]
    car = race.car._replace(
        velocity=jnp.array([30.0, 40.0]), rolling=jnp.full(4, 60.0), spin=jnp.asarray(3.0)
    )
    moving = levels(see(race._replace(car=car, episode_return=jnp.asarray(88.0))))[84:]
    speed, front, rear, turning = (slice(12, 15), slice(17, 21), slice(22, 26), slice(66, 72))
    assert moving[:, speed].sum() > still[:, speed].sum() + 1000
    assert moving[:, front, 2].sum() > 1000 > moving[:, front, 0].sum()
    assert moving[:, rear, 2].sum() > 1000
    assert moving[:, turning, 0].sum() > still[:, turning, 0].sum() + 2000
    assert (moving[:, :12] != still[:, :12]).any()


def test_a_tile_that_was_touched_loses_its_shade() -> None:
    race, see = compiled()[0](circle()), compiled()[2]
    plain = levels(see(race._replace(touched=jnp.ones(TILES, bool))))[:60]
    shaded = levels(see(race._replace(touched=jnp.zeros(TILES, bool))))[:60]
    assert set(np.unique(shaded - plain)) >= {0, 2, 5}
    assert (shaded >= plain).all()


def test_lifetimes_in_a_program_and_their_steps_agree() -> None:
    """A state and what comes of it have the same types, in either precision."""
    for x64 in (False, True):
        with jax.enable_x64(x64):
            race = jax.eval_shape(reset, jax.random.key(0))
            raced, reward, over = jax.eval_shape(step, race, jnp.zeros(3))
            assert jax.tree.map(lambda a: (a.shape, a.dtype), race) == jax.tree.map(
                lambda a: (a.shape, a.dtype), raced
            )
            assert (reward.shape, over.shape, over.dtype) == ((), (), bool)
            image = jax.eval_shape(observe, race)
            assert (image.shape, image.dtype) == ((96, 96, 3), np.uint8)


@pytest.mark.slow
def test_races_side_by_side_are_those_one_by_one() -> None:
    """As accelerators run them: a batch through every operation."""
    keys = jax.random.split(jax.random.key(2), 3)
    actions = jnp.asarray(random_actions(2, 3))

    def race(key, action):
        raced, reward, _ = step(reset(key), action)
        return raced.circuit.maps[0], raced.car, reward, observe(raced, 24, zooms=True)

    together_ = jax.device_get(jax.jit(jax.vmap(race))(keys, actions))
    alone = jax.jit(race)
    for i in range(3):
        maps, car, reward, image = jax.device_get(alone(keys[i], actions[i]))
        assert (maps != together_[0][i]).mean() < 1e-5
        for ours_, wanted in zip(jax.tree.leaves(together_[1]), jax.tree.leaves(car), strict=True):
            np.testing.assert_allclose(ours_[i], wanted, atol=1e-4)
        np.testing.assert_allclose(together_[2][i], reward, rtol=1e-5)
        assert np.abs(levels(image) - levels(together_[3][i])).mean() < 0.5


def test_the_limit_and_spaces_are_gymnasiums() -> None:
    spec = gymnasium.spec("CarRacing-v3")
    assert spec.max_episode_steps == MAX_EPISODE_STEPS
