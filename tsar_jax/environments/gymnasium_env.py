"""Any Gymnasium environment whose observations and actions are boxes or discrete."""

import os
from functools import partial
from typing import Any

import chex
import numpy as np

from tsar_jax.environments.own import COMPILED, INSTALL
from tsar_jax.environments.seeds import checked_seeds
from tsar_jax.environments.types import HostEnvironments
from tsar_jax.errors import NotInstalled, UserError


class GymnasiumEnvironments(HostEnvironments):
    """`count` copies of one Gymnasium environment, simulated in turn.

    Outputs become actions by argmax (Discrete) or by clipping (Box, flattened). Observations are
    one-hot (Discrete), frames as they are (uint8 [height, width, 3]), or flat vectors (any other
    Box); float32 but for the frames. An environment that is done costs nothing until the next
    reset. An output that is not finite ends the episode of its environment, done and with a reward
    of NaN, and leaves the others alone.

    Args:
        name: as registered ("CarRacing-v3"), or with the module that registers it
            ("module:Name-v0").
        count: number of copies.
        max_episode_steps: steps per episode; None: the environment's own, which not every one has.
        default_episode_steps: steps per episode where max_episode_steps is None and the environment
            has none of its own.
        renderable: whether `draw` can be called.

    Raises:
        UserError: the name is unknown, a space is of another kind, nothing limits the steps, count
            is below 1, or a package is missing.
    """

    def __init__(
        self,
        name: str,
        count: int,
        max_episode_steps: int | None = None,
        *,
        default_episode_steps: int | None = None,
        renderable: bool = False,
    ) -> None:
        if count < 1:
            raise UserError(f"count must be at least 1, but is {count}.")
        # pygame, which some environments import, greets, and complains where there is no screen.
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        try:
            import gymnasium
        except ImportError as error:
            raise NotInstalled(
                f"{name} needs Gymnasium, which is not installed: {INSTALL}, or choose from "
                f"{', '.join(COMPILED)}."
            ) from error
        # Imported here because it imports Gymnasium, which importing tsar_jax must not.
        from tsar_jax.environments.gymnasium_episode import make_episode

        self._vector = gymnasium.vector.SyncVectorEnv(
            [
                partial(
                    make_episode,
                    name,
                    max_episode_steps,
                    default_episode_steps=default_episode_steps,
                    renderable=renderable,
                )
            ]
            * count
        )
        self._done = np.zeros(count, bool)
        episode: Any = self._vector.envs[0]
        self.count = count
        self.observation_shape = episode.observation_space.shape
        self.num_actions = episode.num_actions
        self.max_episode_steps = episode.max_episode_steps

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begin an episode in each, from seeds uint32 [count]; return observations [count, ...].

        A seed's episode is the same in every place and among any number of others.

        Raises:
            UserError: there is another number of seeds, or one is no integer in [0, 2**32).
        """
        seeds = checked_seeds(seeds, self.count)
        self._done = np.zeros(self.count, bool)
        observations: np.ndarray = self._vector.reset(seed=seeds.tolist())[0]
        return observations

    def step(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Map network outputs [count, num_actions] to observations, rewards and done [count]."""
        chex.assert_shape(outputs, (self.count, self.num_actions))
        stepped: Any = self._vector.step(np.asarray(outputs))
        observations, rewards, terminated, truncated, _ = stepped
        # The vector forgets an end when it resets by itself, one step later.
        self._done = self._done | terminated | truncated
        return observations, rewards, self._done

    def draw(self) -> np.ndarray:
        """Return a picture of the first environment as it is now: uint8 [height, width, 3]."""
        return np.asarray(self._vector.envs[0].render())

    @property
    def frames_per_second(self) -> float:
        """Return the steps in a second of the environment's own time, as Gymnasium shows it."""
        return float(self._vector.envs[0].metadata.get("render_fps", 30))

    def close(self) -> None:
        """Free the simulator; a second call does nothing."""
        self._vector.close()
