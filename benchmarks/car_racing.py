"""Car racing: frames of many cars, and pixel policies that learn while they drive, by Gymnasium's.

At least, here, is no roofline but what Gymnasium's CarRacing-v3 would do, a copy on each core: the
ratio is how much less time than it.
"""

import functools
from typing import Any

import jax
import numpy as np

from benchmarks.machine import Rates, Sizes, fastest
from benchmarks.measure import Benchmark, Cost, Targets, Work
from tsar_jax.devices import map_over, split_cpu, usable_cores
from tsar_jax.environments.car_racing.fleet import Fleet
from tsar_jax.environments.car_racing.racing import MAX_EPISODE_STEPS, SIDE, car_racing
from tsar_jax.environments.gymnasium_env import GymnasiumEnvironments
from tsar_jax.systems.hebbian.policy import PolicyConfig, make_policy
from tsar_jax.systems.hebbian.rollouts import lifetime_fitness

PROBED = 60
"""Frames of Gymnasium's in one try; all tries are of one race, far shorter than its limit."""


def gymnasium_rate(sizes: Sizes) -> Rates:
    """Frames per second of Gymnasium's on all cores, if each had as much as one has alone."""
    world = GymnasiumEnvironments("CarRacing-v3", 1)
    outputs = np.zeros((1, 3), np.float32)
    world.reset(np.zeros(1, np.uint32))

    def drive() -> None:
        for _ in range(PROBED):
            world.step(outputs)

    seconds = fastest(drive, sizes.tries)
    world.close()
    return {"gymnasium": usable_cores() * PROBED / seconds}


def frames(count: int) -> Work:
    """A frame of every car, drawn and brought to the host; a unit is one car's."""
    split_cpu()
    fleet = Fleet(count, SIDE, zooms=False)
    fleet.reset(np.arange(count), jax.random.split(jax.random.key(0), count))
    actions = np.random.default_rng(0).uniform([-0.1, 0, 0], [0.1, 0.1, 0], (count, 3))

    def function(state: Any, call: np.int32) -> tuple[Any, Any]:
        del call
        return state, fleet.advance(actions).rewards

    cost = Cost(1.0, "frame", gymnasium_rate)
    return Work(function, (), (), count, (cost,), compiled=False)


def lives(count: int, steps: int) -> Work:
    """The beginnings of lifetimes with the published pixel policy, their tracks included.

    A unit is one step of one agent: view, policy, plasticity and motion.
    """
    split_cpu()
    world = car_racing(patience=MAX_EPISODE_STEPS)._replace(max_episode_steps=steps)
    policy = make_policy(PolicyConfig(), world.observation_shape, world.num_actions)

    def function(state: Any, call: jax.Array) -> tuple[Any, Any]:
        def live(key: jax.Array, _: Any) -> jax.Array:
            return lifetime_fitness(policy, world, policy.init(key), key)

        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), call), count)
        return state, map_over(live, count)(keys, ())

    return Work(function, (), (), count * steps, (Cost(1.0, "frame", gymnasium_rate),))


BENCHMARKS = (
    Benchmark(
        "car_frames",
        "car racing, dynamics and view, per frame of 200 cars; 1 is Gymnasium's time",
        functools.partial(frames, 200),
        functools.partial(frames, 2),
        Targets(ratio=1 / 25),
    ),
    Benchmark(
        "car_lives",
        "car racing with pixel policy and plasticity, per agent-step; 1 is Gymnasium's time",
        functools.partial(lives, 40, 100),
        functools.partial(lives, 2, 2),
        Targets(ratio=1 / 7),
    ),
)
