"""A race against the clock, from pixels: Gymnasium's CarRacing-v3 as pure functions.

Rewards are 1000/n for each of a track's n tiles at a wheel's first touch, and -0.1 per frame. See
gymnasium.farama.org/environments/box2d/car_racing.
"""

from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from tsar_jax.environments.car_racing.contacts import Tiles, outlines, touching
from tsar_jax.environments.car_racing.dynamics import INTERVAL, Car, init_car, move, push, settle
from tsar_jax.environments.car_racing.road_map import draw_map
from tsar_jax.environments.car_racing.track import PLAYFIELD, Track, random_track
from tsar_jax.environments.car_racing.view import render
from tsar_jax.environments.types import Environment

MAX_EPISODE_STEPS = 1000  # frames of an episode
FRAMES_PER_SECOND = round(1 / INTERVAL)
FRAME_REWARD, TRACK_REWARD, LOST_REWARD = -0.1, 1000.0, -100.0
LAP = 0.95
"""Share of the tiles after which the first touch of the starting tile completes a lap."""
ACTION_LOW, ACTION_HIGH = (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0)
"""Bounds of steering (to the right), gas and brake."""
SIDE, POLICY_SIDE = 96, 84
"""Pixels of Gymnasium's images, and of those that the pixel policy of Najarro and Risi sees."""
PATIENCE = 20
"""Frames in a row without reward after which they still let a car go on."""


class Circuit(NamedTuple):
    """A track, its tiles' outlines, and its map: entry `number` of maps uint16 [n, SIDE, SIDE].

    Many cars, each on its own track, can share the maps. None of this changes in a race.
    """

    track: Track
    tiles: Tiles
    maps: jax.Array
    number: jax.Array


class Race(NamedTuple):
    """State of one car on one circuit.

    on_road: bool [4], which wheels touched the road at the latest check, one frame ago.
    touched: bool [TILES], tiles that the hull or a wheel has touched.
    visited: bool [TILES], tiles that a wheel has touched.
    episode_return: sum of rewards so far.
    due: reward of the tiles under the car at its start, which the first frame pays.
    frames: number since the start.
    unrewarded: frames in a row until now whose reward was negative.
    lap: whether the race ended with a lap.
    """

    circuit: Circuit
    car: Car
    on_road: jax.Array
    touched: jax.Array
    visited: jax.Array
    episode_return: jax.Array
    due: jax.Array
    frames: jax.Array
    unrewarded: jax.Array
    lap: jax.Array


def reset(key: jax.Array) -> Race:
    """Return the start of a race on a random track."""
    return reset_on_track(random_track(key))


def reset_on_track(track: Track) -> Race:
    """Return the start of a race on a given track: the car stands on its first point."""
    car, tiles = init_car(track.points[0], track.headings[0]), outlines(track)
    contacts = touching(tiles, car)
    visited = contacts.by_wheel
    due = TRACK_REWARD / track.size * visited.sum()
    return Race(
        circuit=Circuit(track, tiles, draw_map(track)[None], jnp.zeros((), jnp.int32)),
        car=settle(car),
        on_road=contacts.on_road,
        touched=contacts.by_car,
        visited=visited,
        episode_return=jnp.zeros_like(due),
        due=due,
        frames=jnp.zeros((), jnp.int32),
        unrewarded=jnp.zeros((), jnp.int32),
        lap=jnp.zeros((), bool),
    )


def step(race: Race, action: jax.Array) -> tuple[Race, jax.Array, jax.Array]:
    """Advance a race by one frame.

    Args:
        race: the state before the frame.
        action: float [3], steering from -1 (left) to 1, gas and brake from 0 to 1; values outside
            are clipped. One that is not finite ends the race with a reward of NaN.

    Returns:
        The race, its reward, and whether it is over, by a lap or far off the track.
    """
    chex.assert_shape(action, (3,))
    count = race.circuit.track.size
    sound = jnp.isfinite(action).all()
    action = jnp.clip(jnp.where(sound, action, 0), jnp.array(ACTION_LOW), jnp.array(ACTION_HIGH))
    pushed, motor = push(race.car, action, race.on_road)
    # Box2D looks for contacts before it moves bodies.
    contacts = touching(race.circuit.tiles, race.car)
    car = move(pushed, motor)
    new = contacts.by_wheel & ~race.visited
    visited = race.visited | new
    visited_share = visited.sum() / count
    lap = (visited_share == 1) | (new[0] & (visited_share > LAP))
    lost = jnp.abs(car.position).max() > PLAYFIELD
    reward = race.due + TRACK_REWARD / count * new.sum() + FRAME_REWARD
    reward = jnp.where(lost, LOST_REWARD, jnp.where(sound, reward, jnp.nan))
    raced = race._replace(
        car=car,
        on_road=contacts.on_road,
        touched=race.touched | contacts.by_car,
        visited=visited,
        episode_return=race.episode_return + reward,
        due=jnp.zeros_like(race.due),
        frames=race.frames + 1,
        unrewarded=jnp.where(reward < 0, race.unrewarded + 1, 0),
        lap=lap & ~lost,
    )
    return raced, reward, lap | lost | ~sound


def observe(race: Race, side: int = SIDE, *, zooms: bool = False) -> jax.Array:
    """Return the driver's view: uint8 [side, side, 3].

    Args:
        race: the state.
        side: pixels.
        zooms: whether the first second zooms in from far above, as Gymnasium's frames do.
    """
    seconds = INTERVAL * (race.frames + 1)
    circuit, episode_return = race.circuit, race.episode_return + race.due
    road = circuit.maps, circuit.number
    return render(road, race.touched, race.car, episode_return, seconds, side, zooms=zooms)


def drive(outputs: jax.Array) -> jax.Array:
    """Map network outputs [3] to an action [3]: tanh of the first, logistic of the others."""
    chex.assert_shape(outputs, (3,))
    return jnp.append(jnp.tanh(outputs[:1]), jax.nn.sigmoid(outputs[1:]))


def car_racing(
    side: int = POLICY_SIDE, *, patience: int = PATIENCE, zooms: bool = True
) -> Environment:
    """Return the race as an environment for a policy that sees pixels.

    Args:
        side: pixels of the observations.
        patience: an episode also ends after more than so many frames in a row with negative reward.
        zooms: whether the first second zooms in from far above.
    """

    def step_or_stop(race: Race, action: jax.Array) -> tuple[Race, jax.Array, jax.Array]:
        raced, reward, done = step(race, action)
        return raced, reward, done | (raced.unrewarded > patience)

    return Environment(
        reset=reset,
        observe=partial(observe, side=side, zooms=zooms),
        act=drive,
        step=step_or_stop,
        observation_shape=(side, side, 3),
        num_actions=3,
        max_episode_steps=MAX_EPISODE_STEPS,
    )
