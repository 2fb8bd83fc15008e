"""Car racing as one of Gymnasium's vector environments.

Imports Gymnasium, which not every installation has.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector.utils import batch_space

from tsar_jax.environments.car_racing.fleet import Fleet
from tsar_jax.environments.car_racing.racing import (
    ACTION_HIGH,
    ACTION_LOW,
    FRAMES_PER_SECOND,
    MAX_EPISODE_STEPS,
    SIDE,
)
from tsar_jax.environments.seeds import checked_seeds
from tsar_jax.errors import UserError, check_positive, checked_seed

NAMES = "steering", "gas", "brake"


class CarRacingVector(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Races of `num_envs` cars in one program, with the spaces and rewards of CarRacing-v3.

    Each race is on a random track of its own. After the end of a race a new one begins at the next
    step, which ignores its action and gives a reward of 0 (Gymnasium's NEXT_STEP).

    Args:
        num_envs: number of cars.
        side: pixels of the images.
        zooms: whether the first second zooms in from far above, as CarRacing-v3 does.
        max_episode_steps: frames after which a race is truncated.

    Raises:
        UserError: a number is below 1.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (as Gymnasium declares it)
        "render_modes": ["rgb_array"],
        "render_fps": FRAMES_PER_SECOND,
        "autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int,
        *,
        side: int = SIDE,
        zooms: bool = True,
        max_episode_steps: int = MAX_EPISODE_STEPS,
    ) -> None:
        self.num_envs, self.side, self.max_episode_steps = num_envs, side, max_episode_steps
        check_positive(self, "num_envs", "side", "max_episode_steps")
        self.render_mode = "rgb_array"
        self.single_observation_space = Box(0, 255, (side, side, 3), np.uint8)
        self.single_action_space = Box(
            np.array(ACTION_LOW, np.float32), np.array(ACTION_HIGH, np.float32)
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._fleet = Fleet(num_envs, side, zooms=zooms)
        self._seeds: np.ndarray | None = None
        self._races = np.zeros(num_envs, int)  # begun so far
        self._steps = np.zeros(num_envs, int)
        self._done = np.zeros(num_envs, bool)
        self._images = np.zeros((num_envs, side, side, 3), np.uint8)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a race for each car.

        Args:
            seed: car i uses seed + i, or entry i of a sequence.
            options: at most "reset_mask", bool [num_envs], which selects the cars that begin anew,
                as in Gymnasium's own vectors; the others' images stay as they are.

        Returns:
            Images uint8 [num_envs, side, side, 3], and no information.

        Raises:
            UserError: a sequence has another length, a seed is no integer in [0, 2**32), an option
                is unknown, or a mask has another shape or dtype, selects no car, or leaves out a
                car that has no race yet.
        """
        cars = self._chosen(options or {})
        self._seed(seed, cars)
        self._begin_races(cars)
        images = self._images.copy()
        images[cars] = self._fleet.look()[cars]
        self._images = images
        return self._images, {}

    def _chosen(self, options: dict[str, Any]) -> np.ndarray:
        """Return the numbers of the cars that the options of a reset are about."""
        unknown = sorted(set(options) - {"reset_mask"}, key=str)
        if unknown:
            raise UserError(f"reset has no option {unknown[0]!r}: it takes reset_mask alone.")
        if "reset_mask" not in options:
            return np.arange(self.num_envs)
        mask = np.asarray(options["reset_mask"])
        if mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise UserError(
                f"reset_mask must be {self.num_envs} booleans, one for each car, and true of one "
                f"or more, but is {mask.tolist()}."
            )
        if self._seeds is None and not mask.all():
            raise UserError("reset_mask leaves out cars without a race: reset all of them first.")
        return np.flatnonzero(mask)

    def _seed(self, seed: Any, cars: np.ndarray) -> None:
        """Give these cars the seeds that a reset names; without any, theirs go on."""
        numbers = np.arange(self.num_envs)
        if seed is None:
            if self._seeds is not None:
                return
            seeds = self.np_random.integers(2**31) + numbers  # the first reset draws one
        elif np.ndim(seed) == 0:
            first = checked_seed("seed", seed, self.num_envs)
            super().reset(seed=first)
            seeds = first + numbers
        else:
            if len(seed) != self.num_envs:
                raise UserError(
                    f"seed has {len(seed)} entries, but there are {self.num_envs} cars: give each "
                    "its own."
                )
            renderable = self.np_random.integers(2**31, size=self.num_envs).tolist()
            given = [d if s is None else s for s, d in zip(seed, renderable, strict=True)]
            seeds = checked_seeds(given, self.num_envs)
        seeds = seeds.astype(np.uint32)
        if self._seeds is None:
            self._seeds = seeds
        self._seeds[cars], self._races[cars] = seeds[cars], 0

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance every race by a frame.

        Args:
            actions: float [num_envs, 3].

        Returns:
            Images, rewards, terminated, truncated, information.

        Raises:
            UserError: actions have another shape, are not finite or out of range.
        """
        if self._seeds is None:
            raise UserError("No race has begun: call reset before step.")
        actions = np.asarray(actions, np.float32)
        self._check(actions)
        fresh = np.flatnonzero(self._done)
        if fresh.size:
            actions = actions.copy()
            actions[fresh] = 0
        frame = self._fleet.advance(actions)
        images, rewards = frame.images.copy(), frame.rewards.copy()
        self._steps += 1
        terminated = frame.done.copy()
        if fresh.size:
            self._begin_races(fresh)
            images[fresh] = self._fleet.look()[fresh]
            rewards[fresh], terminated[fresh] = 0, False
        truncated = self._steps >= self.max_episode_steps
        self._done = terminated | truncated
        self._images = images
        information = {"lap_finished": frame.laps, "_lap_finished": terminated}
        return images, rewards, terminated, truncated, information if terminated.any() else {}

    def render(self) -> tuple[np.ndarray, ...]:
        """Return each driver's view."""
        return tuple(self._images)

    def _begin_races(self, cars: np.ndarray) -> None:
        """Begin a race for each of these cars, from its seed and its number of races so far."""
        assert self._seeds is not None
        keys = _keys(self._seeds[cars], self._races[cars])
        self._fleet.reset(cars, keys)
        self._races[cars] += 1
        self._steps[cars], self._done[cars] = 0, False

    def _check(self, actions: np.ndarray) -> None:
        if actions.shape != (self.num_envs, 3):
            raise UserError(
                f"actions must have the shape [{self.num_envs}, 3], but have {list(actions.shape)}."
            )
        bad = ~((actions >= ACTION_LOW) & (actions <= ACTION_HIGH))
        if bad.any():
            car, part = np.argwhere(bad)[0]
            raise UserError(
                f"The {NAMES[part]} of car {car} is {actions[car, part]}: it must be a number from "
                f"{ACTION_LOW[part]:g} to {ACTION_HIGH[part]:g}; np.clip the actions."
            )


@jax.jit
@jax.vmap
def _keys(seed: jax.Array, race: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), race)
