"""One Gymnasium environment between a network and the end of an episode.

Imports Gymnasium, which not every installation has: to be imported only where one is made.
"""

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from scipy.special import expit

from tsar_jax.environments.own import COMPILED, INSTALL, QUADRUPED
from tsar_jax.errors import UserError, nearest
from tsar_jax.modules import search_working_folder


def make_episode(
    name: str,
    max_episode_steps: int | None,
    *,
    default_episode_steps: int | None = None,
    renderable: bool = False,
) -> "Episode":
    """Make an environment of a registered name, as one episode at a time.

    Args:
        name: the module that a name "module:Name-v0" begins with may lie in the working folder.
        max_episode_steps: steps of an episode at most; None: as many as the environment has itself.
        default_episode_steps: steps where max_episode_steps is None and the environment has no
            limit either.
        renderable: whether it can be rendered as an array.

    Raises:
        UserError: the name is unknown, a package is missing, a space is unsupported, or nothing
            limits the steps.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise UserError(f"max_episode_steps must be at least 1, but is {max_episode_steps}.")
    try:
        # An environment that cannot be rendered need not know the setting.
        rendered: dict[str, Any] = {"render_mode": "rgb_array"} if renderable else {}
        if ":" in name:
            search_working_folder()
        env = gymnasium.make(name, max_episode_steps=max_episode_steps, **rendered)
        if default_episode_steps and (env.spec is None or env.spec.max_episode_steps is None):
            env = gymnasium.wrappers.TimeLimit(env, default_episode_steps)
    except (gymnasium.error.DependencyNotInstalled, ImportError, SyntaxError) as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise UserError(
            f"{name} cannot be made ({reason}): {INSTALL} installs what Gymnasium's own "
            "environments need, and another package's come with that package."
        ) from error
    except gymnasium.error.Error as error:
        # Only Gymnasium's names have a version, as in CartPole-v1.
        own = None if "-v" in name else nearest(name, (*COMPILED, QUADRUPED))
        near = get_close_matches(name, gymnasium.registry, cutoff=0)
        nearest_names = " and ".join([*([own] if own else []), *near][:2])
        raise UserError(
            f"Gymnasium has no environment {name!r}: the nearest are {nearest_names}; name one of "
            "another package with it (package:Name-v0), or import the module that registers it "
            "(--modules)."
        ) from error
    return Episode(env, name)


class Episode(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that takes a network's outputs and stands still once its episode is done.

    Actions are outputs float [num_actions]: see `action_map` (of car racing `drive`, as in Najarro
    and Risi 2020); observations are those of `observation_map`. From the end on, a step simulates
    nothing, and gives the last observation, reward 0 and terminated. Only a reset with a seed
    begins
    an episode: one without, which is how Gymnasium's vectors reset by themselves, changes nothing.

    Raises:
        UserError: a space is neither Box nor Discrete, or nothing limits the steps.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        if env.spec is None or env.spec.max_episode_steps is None:
            raise UserError(
                f"{name} has no limit of steps of its own: give it one (limit, or "
                "max_episode_steps of the environment)."
            )
        self.max_episode_steps = env.spec.max_episode_steps
        self._act, self.num_actions = action_map(env.action_space, name)
        if env.spec.id.startswith("CarRacing-") and isinstance(env.action_space, Box):
            self._act = drive
        self._observe, self.observation_space = observation_map(env.observation_space, name)
        self.action_space = Box(-np.inf, np.inf, (self.num_actions,))
        self._over = True
        self._last = np.zeros(self.observation_space.shape, self.observation_space.dtype)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the first observation of an episode from a seed; without a seed, the last one
        again.
        """
        if seed is not None:
            observation, _ = self.env.reset(seed=seed, options=options)
            self._last, self._over = self._observe(observation), False
        return self._last, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Map network outputs [num_actions] to (observation, reward, terminated, truncated, {}).

        An output that is not finite is no action: it ends the episode, with a reward of NaN.
        """
        if self._over:
            return self._last, 0.0, True, False, {}
        if not np.isfinite(action).all():
            self._over = True
            return self._last, math.nan, True, False, {}
        observation, reward, terminated, truncated, _ = self.env.step(self._act(action))
        self._last, self._over = self._observe(observation), terminated or truncated
        return self._last, float(reward), terminated, truncated, {}


def drive(outputs: np.ndarray) -> np.ndarray:
    """Map outputs [3] to steering by tanh, gas and brake by the logistic function; float32."""
    steering, pedals = np.tanh(outputs[:1]), expit(outputs[1:].astype(np.float64))
    return np.concatenate([steering, pedals]).astype(np.float32)


def action_map(space: Space[Any], name: str) -> tuple[Callable[[np.ndarray], Any], int]:
    """Return the function from outputs [n] to an action in a space, and n.

    Discrete: the largest output's action. Box of any shape: clipped to its bounds (infinite ones
    do not bind), and rounded where it holds integers.

    Raises:
        UserError: the space is of another kind.
    """
    if isinstance(space, Discrete):
        first = int(space.start)
        return lambda outputs: first + int(outputs.argmax()), int(space.n)
    if isinstance(space, Box):
        low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
        whole = np.issubdtype(dtype, np.integer)

        def clipped(outputs: np.ndarray) -> np.ndarray:
            action = np.clip(outputs.reshape(shape), low, high)
            return (np.rint(action) if whole else action).astype(dtype)

        return clipped, math.prod(shape)
    raise _unsupported(space, "action", name)


def observation_map(space: Space[Any], name: str) -> tuple[Callable[[Any], np.ndarray], Box]:
    """Return the function from an observation to an array, and the space of such arrays.

    Frames, uint8 [height, width, 3], stay as they are; any other Box becomes a vector of float32;
    Discrete a one-hot vector of float32.

    Raises:
        UserError: the space is of another kind.
    """
    if isinstance(space, Discrete):
        first, choices = int(space.start), np.arange(int(space.n))
        return (
            lambda value: (choices == value - first).astype(np.float32),
            Box(0, 1, choices.shape),
        )
    if isinstance(space, Box) and space.dtype == np.uint8 and space.shape[2:] == (3,):
        return np.asarray, space
    if isinstance(space, Box):
        size = math.prod(space.shape)
        return (
            lambda value: np.asarray(value, np.float32).reshape(size),
            Box(-np.inf, np.inf, (size,)),
        )
    raise _unsupported(space, "observation", name)


def _unsupported(space: Space[Any], kind: str, name: str) -> UserError:
    return UserError(
        f"The {kind} space of {name} is {type(space).__name__}, but only Box and Discrete can be "
        f"used: wrap it in a gymnasium.{kind.capitalize()}Wrapper and register that by a new name."
    )
