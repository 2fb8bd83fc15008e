"""Evolved policies in new lifetimes: the centre of a run's population, and environments for it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from tsar_jax.environments.own import QUADRUPED
from tsar_jax.environments.registry import find_environments
from tsar_jax.environments.types import Environment, HostEnvironments, Variants
from tsar_jax.errors import check_positive, check_seed
from tsar_jax.evaluation.spread import UNBOUNDED, lifetimes_band, spread_text
from tsar_jax.modules import check_allowed, environment_modules
from tsar_jax.systems.hebbian.evolution import Genome
from tsar_jax.systems.hebbian.policy import Policy
from tsar_jax.systems.hebbian.presets import EXPERIMENT
from tsar_jax.systems.hebbian.system import HebbianConfig, policy_for
from tsar_jax.training.checkpoints import load_checkpoint
from tsar_jax.training.run import read_run


class EvaluationEnvs(NamedTuple):
    """What an evolved policy is evaluated in.

    names: of each world: the bodies of a quadruped, or the environment alone.
    envs: variants of a compiled environment, or simulators, one for each name.
    """

    names: tuple[str, ...]
    envs: Variants | Sequence[HostEnvironments]

    @property
    def first(self) -> Environment | HostEnvironments:
        """Return the first world, whose observations, actions and steps are those of all."""
        return self.envs.one(0) if isinstance(self.envs, Variants) else self.envs[0]


class Evolved(NamedTuple):
    """A finished or half-finished evolution: its policy, and the centre of its population."""

    config: HebbianConfig
    policy: Policy
    genome: Genome
    generation: int


def read_config(path: Path) -> HebbianConfig:
    """Return the config of a run of hebbian_evolve.

    Raises:
        UserError: the folder holds no such run.
    """
    return read_run(path, EXPERIMENT, HebbianConfig)


def check_environment(path: Path, config: HebbianConfig, modules: Sequence[str]) -> None:
    """Check that a run's environment imports no module but the named ones.

    Args:
        path: the run's folder.
        config: the run's.
        modules: names of the modules that may be imported.

    Raises:
        UserError: the environment is "module:Name-v0" of another module.
    """
    check_allowed(environment_modules(config.environment), modules, path)


def make_envs(
    config: HebbianConfig,
    count: int,
    bodies: Sequence[str] = (),
    environment: str | None = None,
    max_episode_steps: int | None = None,
) -> EvaluationEnvs:
    """Return a run's environment, or its bodies or others.

    Args:
        config: made here, or of a run that `check_environment` has accepted.
        count: number of copies of each simulator outside JAX, one per lifetime.
        bodies: bodies of a quadruped; none given: those of the run.
        environment: name of another environment; None: the run's.
        max_episode_steps: steps of a lifetime at most; None: as many as the environment has, or
            else as the run was evolved with.

    Raises:
        UserError: there is no such environment or body, or a package is missing.
    """
    names, chosen = tuple(bodies) or config.bodies, environment or config.environment
    envs = find_environments(
        chosen,
        names,
        config.engine,
        config.integrator,
        max_episode_steps,
        default_episode_steps=config.limit,
    )
    labels = names if chosen == QUADRUPED else (chosen,)
    return EvaluationEnvs(labels, envs if isinstance(envs, Variants) else envs(count))


def load_evolved(
    path: Path,
    config: HebbianConfig,
    env: Environment | HostEnvironments,
    step: int | None,
    number: int = 0,
) -> Evolved:
    """Return a population's centre from a checkpoint.

    Args:
        path: the run's folder.
        config: the run's.
        env: the environment, whose observations and actions give the policy its shape.
        step: generation of the checkpoint; None: the newest usable one.
        number: seed of a run of several, counted from 0.
    """
    policy = policy_for(config, env)
    like = jax.eval_shape(policy.init, jax.random.key(0))
    genome, generation = load_checkpoint(path, step, like=like, branch="genome", seed=number)
    return Evolved(config, policy, jax.device_get(genome), generation)


@dataclasses.dataclass(frozen=True)
class EpisodeSettings:
    """Number, seed and length of the lifetimes that an evolved policy is evaluated in."""

    lifetimes: int = 32
    """Number of lifetimes, at least 1, each with initial weights and an environment of its own."""
    seed: int = 1
    """Seed of all lifetimes, in [0, 2**32)."""
    limit: int | None = None
    """Most steps of a lifetime, at least 1; None: as many as the environment has, or, where it has
    no limit, as the run was evolved with.
    """

    def __post_init__(self) -> None:
        check_positive(self, "lifetimes", "limit")
        check_seed(self)

    @property
    def keys(self) -> jax.Array:
        """Return random keys [lifetimes], one per lifetime."""
        return jax.random.split(jax.random.key(self.seed), self.lifetimes)


def scores_text(scores: np.ndarray, digits: int) -> str:
    """Return the scores of lifetimes [lifetimes] as in a table, such as "636.2 ± 178.0".

    ± is the standard deviation of the lifetimes, as in the figure of bodies; digits: after the
    point.
    """
    return spread_text(scores, lifetimes_band, UNBOUNDED, lambda value: f"{value:.{digits}f}")
