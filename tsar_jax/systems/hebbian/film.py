"""Films of evolved policies, frame by frame, without a screen."""

import functools
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from tsar_jax.atomic import replacing
from tsar_jax.environments.own import CAR_RACING, QUADRUPED
from tsar_jax.environments.registry import ADAPTERS
from tsar_jax.environments.types import HostEnvironments
from tsar_jax.errors import UserError
from tsar_jax.systems.hebbian.evolved import Evolved
from tsar_jax.systems.hebbian.rollouts import (
    HostStep,
    batch_policy,
    host_steps,
    init_rollout,
    rollout_step,
)

SIZE = 320, 240
"""Width and height of a frame."""
FRAMES, EVERY = 150, 2
"""Most frames of a film, and steps from one to the next."""

IN_GYMNASIUM = {"cart_pole": "CartPole-v1", "pendulum": "Pendulum-v1"}
"""Gymnasium's environments that move as the compiled ones do, and can be drawn."""


def film(
    evolved: Evolved, environment: str, label: str, key: jax.Array
) -> tuple[np.ndarray, float]:
    """Film the beginning of a lifetime.

    Args:
        evolved: the policy.
        environment: name of the environment.
        label: the same, or the quadruped's body.
        key: randomness of the lifetime.

    Returns:
        Frames, uint8 [n, height, width, 3], and the seconds for which each is shown.

    Raises:
        UserError: nothing can draw the environment.
    """
    if environment == CAR_RACING:
        return _film_race(evolved, key)
    if environment == QUADRUPED:
        return _film_quadruped(evolved, label, key)
    if environment.startswith(tuple(ADAPTERS)):
        raise UserError(f"Nothing here draws {environment}: leave the film out.")
    return _film_gymnasium(evolved, IN_GYMNASIUM.get(label, label), key)


def _film_race(evolved: Evolved, key: jax.Array) -> tuple[np.ndarray, float]:
    from tsar_jax.environments.car_racing import dynamics, racing

    policy, environment = evolved.policy, racing.car_racing()
    genome = policy.prepare(evolved.genome)
    race, weights = init_rollout(policy, environment, genome, key)
    see = jax.jit(functools.partial(racing.observe, side=SIZE[1], zooms=True))
    live = jax.jit(functools.partial(rollout_step, policy, environment))
    frames, over = [see(race)], False
    while not over and race.frames < FRAMES * EVERY:
        race, weights, _, over = live(genome, race, weights)
        if race.frames % EVERY == 0:
            frames.append(see(race))
    pictures = [np.asarray(Image.fromarray(np.asarray(f)).resize(SIZE)) for f in frames]
    return np.stack(pictures), EVERY * dynamics.INTERVAL


def _film_quadruped(evolved: Evolved, body: str, key: jax.Array) -> tuple[np.ndarray, float]:
    from tsar_jax.environments.quadruped import CONTROL_STEP
    from tsar_jax.environments.quadruped_body import build_model, find_body
    from tsar_jax.environments.quadruped_mujoco import MujocoQuadrupeds
    from tsar_jax.environments.quadruped_video import render

    quadruped = find_body(body, evolved.config.integrator)
    env = MujocoQuadrupeds([quadruped])
    postures = [env.state[0][0] for _ in _first_steps(evolved, env, key)]
    return render(build_model(quadruped), np.stack(postures), *SIZE), EVERY * CONTROL_STEP


def _film_gymnasium(evolved: Evolved, name: str, key: jax.Array) -> tuple[np.ndarray, float]:
    from tsar_jax.environments.gymnasium_env import GymnasiumEnvironments

    env = GymnasiumEnvironments(name, 1, default_episode_steps=FRAMES * EVERY, renderable=True)
    frames = [
        np.asarray(Image.fromarray(env.draw()).resize(SIZE))
        for _ in _first_steps(evolved, env, key)
    ]
    return np.stack(frames), EVERY / env.frames_per_second


def _first_steps(evolved: Evolved, env: HostEnvironments, key: jax.Array) -> Iterator[HostStep]:
    policies = batch_policy(evolved.policy, 1, one_genome=True)
    for time, step in enumerate(host_steps(policies, env, evolved.genome, key[None])):
        if time == FRAMES * EVERY:
            return
        if time % EVERY == 0:
            yield step


def write_gif(path: Path, frames: np.ndarray, seconds: float) -> Path:
    """Write frames uint8 [n, height, width, 3], each shown for so long, as a GIF that repeats.

    Returns:
        The file's path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One palette for all frames, because colours flicker between palettes.
    palette = Image.fromarray(frames[len(frames) // 2]).quantize(64)
    first, *rest = (
        Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames
    )
    with replacing(path) as file:
        first.save(
            file,
            format="GIF",
            save_all=True,
            append_images=rest,
            duration=round(1000 * seconds),
            loop=0,
        )
    return path
