"""The vector of races that Gymnasium's users drive."""

import os
import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.environments.car_racing.racing import observe, reset, step
from tsar_jax.environments.car_racing.vector import CarRacingVector
from tsar_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("quickly_compiled")

CARS, LIMIT = 3, 6


@pytest.fixture(scope="module")
def vector():
    return CarRacingVector(CARS, side=24, zooms=False, max_episode_steps=LIMIT)


def actions(seed=0, frames=LIMIT):
    rng = np.random.default_rng(seed)
    return rng.uniform([-1, 0, 0], 1, (frames, CARS, 3)).astype(np.float32)


def follow(vector, seed, given):
    """Images [frames + 1, ...], rewards, terminated and truncated [frames, CARS]."""
    images, rest = [vector.reset(seed=seed)[0]], []
    for action in given:
        image, *others, _ = vector.step(action)
        images.append(image)
        rest.append(others)
    return np.array(images), *(np.array(column) for column in zip(*rest, strict=True))


def test_each_car_races_as_it_would_alone(vector) -> None:
    given = actions()
    images, rewards, terminated, truncated = follow(vector, 5, given)
    assert images.dtype == np.uint8
    assert images.shape == (LIMIT + 1, CARS, 24, 24, 3)
    advance, see = jax.jit(step), jax.jit(lambda race: observe(race, 24))
    for car in range(CARS):
        race = jax.jit(reset)(jax.random.fold_in(jax.random.key(5 + car), 0))
        np.testing.assert_array_equal(images[0, car], see(race))
        for frame, action in enumerate(given[:, car]):
            race, reward, _ = advance(race, jnp.asarray(action))
            assert np.isclose(rewards[frame, car], reward, atol=1e-4)
            apart = images[frame + 1, car].astype(int) - np.asarray(see(race))
            assert np.abs(apart).mean() < 0.5
    assert not terminated.any()
    assert truncated[-1].all()
    assert not truncated[:-1].any()


def test_the_same_seed_gives_the_same_races_and_others_do_not(vector) -> None:
    given = actions()
    first, again = follow(vector, 5, given), follow(vector, 5, given)
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Races go on from their seeds: without one, the next reset begins others.
    afterwards = vector.reset()[0]
    assert (afterwards != first[0][0]).any()
    by_list = vector.reset(seed=[5, 6, 7])[0]
    np.testing.assert_array_equal(by_list, first[0][0])


def test_without_a_seed_the_races_are_others_every_time(vector) -> None:
    several = [CarRacingVector(1, side=8, zooms=False) for _ in range(2)]
    for cars in several:
        cars.reset()
    # Two starts may look alike, but two tracks are never the same.
    maps = zip(*(jax.tree.leaves(cars._fleet._maps) for cars in several), strict=True)
    assert any((np.asarray(one) != np.asarray(other)).any() for one, other in maps)


def test_a_race_that_is_over_begins_anew_at_the_next_step(vector) -> None:
    given = actions(frames=LIMIT + 2)
    images, rewards, terminated, truncated = follow(vector, 5, given)
    assert truncated[LIMIT - 1].all()
    assert not rewards[LIMIT].any()
    assert not truncated[LIMIT:].any()
    assert not terminated.any()
    assert (images[LIMIT + 1] != images[0]).any(axis=(1, 2, 3)).all()
    fresh = CarRacingVector(CARS, side=24, zooms=False, max_episode_steps=LIMIT)
    fresh.reset(seed=5)
    np.testing.assert_array_equal(fresh.reset()[0], images[LIMIT + 1])


def test_one_car_that_is_lost_begins_anew_among_the_others(vector) -> None:
    vector.reset(seed=5)
    fleet, still = vector._fleet, np.zeros((CARS, 3), np.float32)
    moving = fleet._moving
    away = jnp.zeros_like(moving.car.centre).reshape(-1, 2).at[1].set(1000.0)
    away = away.reshape(moving.car.centre.shape)
    fleet._moving = moving._replace(car=moving.car._replace(centre=moving.car.centre + away))
    _, rewards, terminated, _, information = vector.step(still)
    assert terminated.tolist() == [False, True, False]
    assert rewards[1] == -100
    assert information["_lap_finished"].tolist() == [False, True, False]
    assert not information["lap_finished"][1]
    images, rewards, terminated, truncated, _ = vector.step(still)
    assert rewards[1] == 0
    assert (rewards[[0, 2]] < 0).all()
    assert not terminated.any()
    assert not truncated.any()
    np.testing.assert_array_equal(images, vector.render())
    race = jax.jit(reset)(jax.random.fold_in(jax.random.key(6), 1))
    np.testing.assert_array_equal(images[1], jax.jit(lambda r: observe(r, 24))(race))


TWO_DEVICES = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
from tsar_jax.environments.car_racing.vector import CarRacingVector
cars = CarRacingVector(3, side=24, zooms=False, max_episode_steps=6)
seen = [cars.reset(seed=5)[0]]
for action in np.load("actions.npy"):
    seen.append(cars.step(action)[0])
np.save("seen.npy", np.array(seen))
"""


@pytest.mark.slow
def test_races_are_the_same_on_two_devices(vector, tmp_path) -> None:
    """Two cars on one, one on the other."""
    given = actions(frames=LIMIT + 2)
    np.save(tmp_path / "actions.npy", given)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", TWO_DEVICES], cwd=tmp_path, env=environment, check=True)
    apart = np.load(tmp_path / "seen.npy").astype(int) - follow(vector, 5, given)[0]
    assert np.abs(apart).mean() < 0.1


def test_spaces_are_gymnasiums(vector) -> None:
    env = gymnasium.make("CarRacing-v3")
    assert vector.single_action_space == env.action_space
    whole = CarRacingVector(1)
    assert whole.single_observation_space == env.observation_space
    assert vector.action_space.shape == (CARS, 3)
    assert vector.metadata["render_fps"] == env.metadata["render_fps"]
    assert vector.observation_space.contains(vector.reset(seed=1)[0])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([1.7, 0, 0], r"The steering of car 2 is 1\.7.*a number from -1 to 1; np\.clip"),
        ([0, -0.5, 0], "The gas of car 2 is -0.5"),
        ([0, 0, np.nan], "The brake of car 2 is nan"),
    ],
)
def test_an_action_out_of_range_is_refused(vector, action, message) -> None:
    vector.reset(seed=0)
    given = np.zeros((CARS, 3))
    given[2] = action
    with pytest.raises(UserError, match=message):
        vector.step(given)


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (2**32, r"seed must be in \[0, 2\*\*32\), but is 4294967296"),
        (2**63, "seed must be in"),
        (-1, "seed must be in"),
        (np.int64(2**32), "seed must be in"),
        (2**32 - 1, "seed is 4294967295, and the last of 3 seeds from there, 4294967297"),
        (True, "seed must be an integer in"),
        (np.True_, "seed must be an integer in"),
        (1.0, "seed must be an integer in"),
        ([1, 2**32, 3], "the seed of environment 1 must be in"),
        ([1, 2, -1], "the seed of environment 2 must be in"),
        ([1, False, 3], "the seed of environment 1 must be an integer"),
    ],
)
def test_a_seed_that_has_no_races_of_its_own_is_refused(vector, seed, message) -> None:
    with pytest.raises(UserError, match=message):
        vector.reset(seed=seed)


def test_seeds_of_numpy_are_those_of_python(vector) -> None:
    wanted = vector.reset(seed=5)[0]
    for seed in (np.int64(5), np.uint8(5), np.asarray([5, 6, 7]), [5, np.int32(6), 7]):
        np.testing.assert_array_equal(vector.reset(seed=seed)[0], wanted)
    last = 2**32 - CARS
    assert (vector.reset(seed=last)[0] != wanted).any()


def test_a_reset_of_some_cars_leaves_the_others_on_their_way(vector) -> None:
    given = actions()
    images, rewards, _, _ = follow(vector, 5, given)
    fresh = vector.reset(seed=50)[0]
    vector.reset(seed=5)
    vector.step(given[0])
    mask = np.asarray([False, True, False])
    seen, _ = vector.reset(seed=50, options={"reset_mask": mask})
    np.testing.assert_array_equal(seen[1], fresh[1])
    np.testing.assert_array_equal(seen[[0, 2]], images[1, [0, 2]])
    np.testing.assert_array_equal(vector.render(), seen)
    seen, found, _, truncated, _ = vector.step(given[1])
    np.testing.assert_array_equal(seen[[0, 2]], images[2, [0, 2]])
    np.testing.assert_array_equal(found[[0, 2]], rewards[1, [0, 2]])
    for action in given[2:]:
        truncated = vector.step(action)[3]
    assert truncated.tolist() == [True, False, True]
    # Without a seed the car's own goes on, to another race.
    assert (vector.reset(options={"reset_mask": mask})[0][1] != fresh[1]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset_mask": [True]}, "reset_mask must be 3 booleans"),
        ({"reset_mask": np.asarray([1, 0, 0])}, "reset_mask must be 3 booleans"),
        ({"reset_mask": np.zeros(CARS, bool)}, "true of one or more"),
        ({1: 2, "a": 3}, "reset has no option 1"),
        ({"randomize": True}, "reset has no option 'randomize'"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(vector, options, message) -> None:
    vector.reset(seed=0)
    with pytest.raises(UserError, match=message):
        vector.reset(options=options)


def test_other_bad_input_is_refused(vector) -> None:
    vector.reset(seed=0)
    with pytest.raises(UserError, match=r"shape \[3, 3\], but have \[3\]"):
        vector.step(np.zeros(3))
    with pytest.raises(UserError, match="seed has 2 entries, but there are 3 cars"):
        vector.reset(seed=[1, 2])
    with pytest.raises(UserError, match="num_envs must be at least 1, but is 0"):
        CarRacingVector(0)
    with pytest.raises(UserError, match="call reset before step"):
        CarRacingVector(1, side=8).step(np.zeros((1, 3)))
    with pytest.raises(UserError, match="cars without a race"):
        CarRacingVector(2, side=8).reset(options={"reset_mask": np.asarray([True, False])})
