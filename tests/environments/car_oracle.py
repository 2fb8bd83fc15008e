"""Gymnasium's car racing, to measure ours against."""

import functools
from typing import NamedTuple

import gymnasium
import numpy as np

SEQUENCES = 20


class Drive(NamedTuple):
    """What Gymnasium's car did: its track [n, 4] (alpha, heading, x, y), actions [frames, 3], and
    after each frame position [frames, 2], heading, speed, reward, and tiles visited by then
    [frames]; over: whether the race ended before the last frame."""

    track: np.ndarray
    actions: np.ndarray
    position: np.ndarray
    heading: np.ndarray
    speed: np.ndarray
    reward: np.ndarray
    visited: np.ndarray
    over: bool


@functools.cache
def environment(rendered: bool = False):
    """One environment for all; unless rendered, it draws nothing, which takes most of its time."""
    env = gymnasium.make("CarRacing-v3").unwrapped
    if not rendered:
        env._render = lambda mode: None
    return env


def random_actions(seed, frames):
    """Held for 15 frames each; some of them brakes, some that lock the wheels, most of them gas."""
    rng = np.random.default_rng(seed)
    holds = -(-frames // 15)
    steering = rng.uniform(-1, 1, holds) * rng.choice([0.15, 1.0], holds)
    brakes = np.where(rng.random(holds) < 0.75, 0, rng.uniform(0, 1, holds))
    actions = np.stack([steering, rng.uniform(0, 0.6, holds), brakes], axis=1)
    return np.repeat(actions, 15, axis=0)[:frames].astype(np.float32)


@functools.cache
def drive(seed, frames):
    """A race on the track of a seed with random actions."""
    env = environment()
    env.reset(seed=seed)
    track, actions, rows = np.array(env.track), random_actions(seed, frames), []
    for action in actions:
        _, reward, over, _, _ = env.step(action)
        hull = env.car.hull
        speed = np.linalg.norm(hull.linearVelocity)
        rows.append((*hull.position, hull.angle, speed, reward, env.tile_visited_count))
        if over:
            break
    x, y, *rest = np.array(rows).T
    return Drive(track, actions[: len(rows)], np.stack([x, y], 1), *rest, over)
