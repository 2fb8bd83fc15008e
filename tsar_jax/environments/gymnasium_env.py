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

    name: as registered ("CarRacing-v3"), or with the module that registers it ("module:Name-v0")
    limit: steps per episode; by default the environment's own, which not every one has
    otherwise: steps per episode where limit is None and the environment has none of its own
    drawn: whether `draw` can be called

    Raises UserError for an unknown name, a space of another kind, no limit, no environment at all,
    or a missing package.
    """

    def __init__(
        self,
        name: str,
        count: int,
        limit: int | None = None,
        *,
        otherwise: int | None = None,
        drawn: bool = False,
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
        # Only now: this module imports Gymnasium, which importing tsar_jax must not.
        from tsar_jax.environments.gymnasium_episode import make_episode

        self._vector = gymnasium.vector.SyncVectorEnv(
            [partial(make_episode, name, limit, otherwise=otherwise, drawn=drawn)] * count
        )
        self._done = np.zeros(count, bool)
        episode: Any = self._vector.envs[0]
        self.count = count
        self.observation_shape = episode.observation_space.shape
        self.outputs = episode.outputs
        self.limit = episode.limit

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begins an episode in each, from seeds uint32 [count]; observations [count, ...].

        A seed's episode is the same in every place and among any number of others. Raises UserError
        for another number of seeds, or one that is no integer in [0, 2**32).
        """
        seeds = checked_seeds(seeds, self.count)
        self._done = np.zeros(self.count, bool)
        observations, _ = self._vector.reset(seed=seeds.tolist())
        return observations

    def step(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Network outputs float [count, outputs] -> observations, rewards and done [count]."""
        chex.assert_shape(outputs, (self.count, self.outputs))
        stepped = self._vector.step(np.asarray(outputs))
        observations, rewards, terminated, truncated, _ = stepped
        # The vector forgets an end when it resets by itself, one step later.
        self._done = self._done | terminated | truncated
        return observations, rewards, self._done

    def draw(self) -> np.ndarray:
        """A picture of the first environment as it is now: uint8 [height, width, 3]."""
        return np.asarray(self._vector.envs[0].render())

    @property
    def frames_per_second(self) -> float:
        """Steps in a second of the environment's own time, as Gymnasium shows it."""
        return float(self._vector.envs[0].metadata.get("render_fps", 30))

    def close(self) -> None:
        """Frees what the simulator holds; a second time does nothing."""
        self._vector.close()
