"""Hebbian networks under evolution: a generation is a step.

Najarro and Risi (2020), arXiv 2007.02686. Every member of a population lives one lifetime or more,
in an environment or in several bodies, and OpenAI-ES moves the genome by what they earned.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.devices import map_over, one_by_one
from tsar_jax.environments.registry import OpenWorlds, find_environments
from tsar_jax.environments.types import Environment, HostEnvironments
from tsar_jax.errors import UserError, check_positive
from tsar_jax.meta.evolution import es_gradient, lifetime_key, perturb
from tsar_jax.systems.hebbian.evolution import (
    Evolution,
    EvolutionState,
    Genome,
    init_evolution,
    learn_from_losses,
    move_centre,
    penalised,
    sigma_schedule,
)
from tsar_jax.systems.hebbian.policy import Policy, PolicyConfig, make_policy
from tsar_jax.systems.hebbian.rollouts import Lives, host_fitness, lifetime_fitness, make_lives
from tsar_jax.training.config import FORMERLY_ZERO, earlier
from tsar_jax.training.loop import LoopConfig
from tsar_jax.training.system import Arrays, HostMetrics, Metrics, System

HOST_METRICS = HostMetrics(
    step=(
        *("fitness_mean", "fitness_best", "fitness_worst"),
        *("nan_members", "infinite_members", "sigma"),
    ),
    evaluate=("fitness", "fitness_std"),
)


@dataclasses.dataclass(frozen=True)
class HebbianConfig(LoopConfig):
    """Evolution of a plastic or static policy. Raises UserError for impossible values."""

    environment: str = "cart_pole"
    """cart_pole, pendulum or car_racing, compiled; quadruped; or any environment that gymnasium
    knows, such as CartPole-v1, CarRacing-v3 or Ant-v5."""
    bodies: tuple[str, ...] = ("standard",)
    """Of the quadruped: standard, or a damaged leg and its length, as right_front or
    left_back:0.2. A member's fitness is its mean over all of them."""
    engine: str = "auto"
    """Of the quadruped: mujoco (threads of a CPU), mjx (compiled, for accelerators), or auto."""
    integrator: str = "RK4"
    """Of the quadruped's motion: RK4, as Ant-v5 has it, or implicitfast, in a quarter of the
    time."""
    rollouts: int = 1
    """Lifetimes of a member in each environment; its fitness is their mean."""
    limit: int | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)
    """Most steps of a lifetime while evolving; None: as many as the environment has."""
    evaluations: int = 16
    """Lifetimes of the population's centre at an evaluation."""
    init: str | None = dataclasses.field(default=None, metadata=earlier(None))
    """Run whose genome is the first generation's centre, of the same policy; None: a random one."""
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    """The network and its plasticity."""
    evolution: Evolution = dataclasses.field(default_factory=Evolution)
    """The evolution strategy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "rollouts", "evaluations", "limit")
        if not self.bodies:
            raise UserError("bodies are none: name at least one, such as standard.")


def make_system(config: HebbianConfig) -> System:
    """Evolution in the environments that a config names. Raises UserError."""
    found = find_environments(
        config.environment, config.bodies, config.engine, config.integrator, config.limit
    )
    return host_system(config, found) if callable(found) else compiled_system(config, found)


def compiled_system(config: HebbianConfig, environments: Sequence[Environment]) -> System:
    """Evolution in compiled environments, a whole generation in one program. There is no data."""
    evolution, policy = config.evolution, policy_for(config, environments[0])
    sigma = sigma_schedule(evolution)

    def mean_fitness(genome: Genome, key: jax.Array) -> jax.Array:
        """Return the mean over the environments, of one lifetime in each."""
        found = [lifetime_fitness(policy, world, genome, key) for world in environments]
        return jnp.stack(found).mean()

    def objective(genome: Genome, rollout: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        del rollout  # its key tells it from the others
        found = mean_fitness(genome, key)
        return -penalised(evolution, found, genome), {"fitness": found}

    def step(
        state: EvolutionState, data: Any, key: jax.Array
    ) -> tuple[EvolutionState, Metrics, Arrays]:
        del data
        estimate = es_gradient(
            objective,
            state.genome,
            jnp.arange(config.rollouts),
            key,
            population=evolution.population,
            sigma=sigma(state.generation),
            shaping=evolution.shaping,
        )
        metrics = summary(estimate.metrics["fitness"], sigma(state.generation))
        return move_centre(evolution, state, estimate.gradient), metrics, {}

    def evaluate(state: EvolutionState, data: Any, key: jax.Array) -> Metrics:
        del data
        keys = jax.random.split(key, config.evaluations)

        def of_lifetime(key: jax.Array, genome: Genome) -> jax.Array:
            rollouts = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(config.rollouts))
            return one_by_one(partial(mean_fitness, genome))(rollouts).mean()

        found = map_over(of_lifetime, config.evaluations)(keys, state.genome)
        return {"fitness": found.mean(), "fitness_std": found.std()}

    return System(
        lambda key: init_evolution(evolution, policy.init(key)),
        step,
        evaluate,
        remedy=remedy(config),
    )


def host_system(config: HebbianConfig, open_worlds: OpenWorlds) -> System:
    """Evolution in simulators outside JAX. There is no data.

    The policies of all members, and what happens between generations, are compiled.
    """
    evolution, count = config.evolution, config.evolution.population
    sigma = sigma_schedule(evolution)
    worlds, evaluation_worlds = open_worlds(count), open_worlds(config.evaluations)
    policy = policy_for(config, worlds[0])
    lives = make_lives(policy, count)
    evaluated = make_lives(policy, config.evaluations, one_genome=True)

    @jax.jit
    def generation(state: EvolutionState, key: jax.Array) -> tuple[Genome, jax.Array]:
        """Every member's genome and key."""
        members = jnp.arange(count)

        def genome_of(member: jax.Array, shared: tuple[EvolutionState, jax.Array]) -> Genome:
            state, key = shared
            return perturb(state.genome, key, sigma(state.generation), member)

        keys = jax.vmap(lambda member: lifetime_key(key, member // 2))(members)
        return map_over(genome_of, count)(members, (state, key)), keys

    @jax.jit
    def learn(state: EvolutionState, key: jax.Array, found: jax.Array, genomes: Genome) -> Any:
        losses = -jax.vmap(partial(penalised, evolution))(found, genomes)
        after = learn_from_losses(evolution, state, key, losses)
        return after, summary(found, sigma(state.generation))

    def step(
        state: EvolutionState, data: Any, key: jax.Array
    ) -> tuple[EvolutionState, Metrics, Arrays]:
        del data
        genomes, keys = generation(state, key)
        found = _mean_fitness(lives, worlds, genomes, keys, config.rollouts)
        return *learn(state, key, found, genomes), {}

    def evaluate(state: EvolutionState, data: Any, key: jax.Array) -> Metrics:
        del data
        keys = jax.random.split(key, config.evaluations)
        found = _mean_fitness(evaluated, evaluation_worlds, state.genome, keys, config.rollouts)
        return {"fitness": found.mean(), "fitness_std": found.std()}

    return System(
        lambda key: init_evolution(evolution, policy.init(key)),
        step,
        evaluate,
        remedy(config),
        HOST_METRICS,
    )


def _mean_fitness(
    lives: Lives,
    worlds: Sequence[HostEnvironments],
    genomes: Genome,
    keys: jax.Array,
    rollouts: int,
) -> jax.Array:
    """Of each agent [count], over environments and rollouts."""
    found = [
        host_fitness(
            lives, world, genomes, jax.vmap(partial(jax.random.fold_in, data=rollout))(keys)
        )
        for world in worlds
        for rollout in range(rollouts)
    ]
    # Infinite ones of both signs have no mean, and a member without one is penalised.
    with np.errstate(invalid="ignore"):
        return jnp.asarray(np.mean(found, axis=0), jnp.float32)


def policy_for(config: HebbianConfig, world: Environment | HostEnvironments) -> Policy:
    """The policy that a config describes, for what a world shows and asks for."""
    return make_policy(config.policy, world.observation_shape, world.outputs)


def remedy(config: HebbianConfig) -> str:
    """What to do where no member of a generation earned a finite number."""
    return (
        f"no member's fitness in {config.environment} was a finite number, so look for what makes "
        "its rewards NaN or infinite, or choose another environment in a new run"
    )


def summary(found: jax.Array, sigma: jax.Array) -> Metrics:
    """Summarise a generation by the finite ones of its members' fitness.

    Those that are NaN or infinite are counted: an infinite fitness ranks, but has no mean. The mean
    is finite unless no member's fitness is.

    Args:
        found: fitness of the members, float [population].
        sigma: standard deviation of the generation's noise.
    """
    finite = jnp.where(jnp.isfinite(found), found, jnp.nan)
    return {
        "fitness_mean": jnp.nanmean(finite),
        "fitness_best": jnp.nanmax(finite),
        "fitness_worst": jnp.nanmin(finite),
        "nan_members": jnp.isnan(found).sum().astype(jnp.float32),
        "infinite_members": jnp.isinf(found).sum().astype(jnp.float32),
        "sigma": jnp.asarray(sigma, jnp.float32),
    }
