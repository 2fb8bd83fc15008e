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

from tsar_jax.devices import map_over
from tsar_jax.environments.registry import OpenWorlds, find_environments
from tsar_jax.environments.types import Environment, HostEnvironments
from tsar_jax.errors import UserError, check_positive
from tsar_jax.evaluation.rollouts import Lives, host_fitness, lifetime_fitness, make_lives
from tsar_jax.meta.evolution import (
    Evolution,
    Genome,
    Strategy,
    ask,
    begin,
    lifetime_key,
    penalised,
    population_fitness,
    tell,
)
from tsar_jax.systems.hebbian_policy import Policy, PolicyConfig, make_policy
from tsar_jax.training.config import earlier
from tsar_jax.training.loop import LoopConfig
from tsar_jax.training.system import HostSystem, Metrics, System

STEP_METRICS = (
    *("fitness_mean", "fitness_best", "fitness_worst"),
    *("nan_members", "infinite_members", "sigma"),
)
EVAL_METRICS = ("fitness", "fitness_std")


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
    limit: int = 0
    """Most steps of a lifetime while evolving; 0: as many as the environment has."""
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
        check_positive(self, "rollouts", "evaluations")
        if self.limit < 0:
            raise UserError(f"limit must be at least 0, but is {self.limit}.")
        if not self.bodies:
            raise UserError("bodies are none: name at least one, such as standard.")


def make_system(config: HebbianConfig) -> System | HostSystem:
    """Evolution in the environments that a config names. Raises UserError."""
    found = find_environments(
        config.environment, config.bodies, config.engine, config.integrator, config.limit
    )
    return host_system(config, found) if callable(found) else compiled_system(config, found)


def compiled_system(config: HebbianConfig, environments: Sequence[Environment]) -> System:
    """Evolution in compiled environments, a whole generation in one program. There is no data."""
    policy = policy_for(config, environments[0])

    def earned(genome: Genome, key: jax.Array) -> jax.Array:
        """Mean over environments and rollouts."""
        earnings = [
            lifetime_fitness(policy, environment, genome, jax.random.fold_in(key, rollout))
            for environment in environments
            for rollout in range(config.rollouts)
        ]
        return jnp.stack(earnings).mean()

    def step(state: Strategy, data: Any, key: jax.Array) -> tuple[Strategy, Metrics]:
        del data

        def fitness_of(genome: Genome, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = earned(genome, key)
            return found, penalised(config.evolution, found, genome)

        found, fitness = population_fitness(config.evolution, state, key, fitness_of)
        return tell(config.evolution, state, key, fitness), summary(found, state)

    def evaluate(state: Strategy, data: Any, key: jax.Array) -> Metrics:
        del data
        keys = jax.random.split(key, config.evaluations)
        found = map_over(lambda k, genome: earned(genome, k), config.evaluations)(
            keys, state.genome
        )
        return {"fitness": found.mean(), "fitness_std": found.std()}

    return System(
        lambda key: begin(config.evolution, policy.init(key)), step, evaluate, remedy=remedy(config)
    )


def host_system(config: HebbianConfig, open_worlds: OpenWorlds) -> HostSystem:
    """Evolution in simulators outside JAX. There is no data.

    The policies of all members, and what happens between generations, are compiled.
    """
    evolution, count = config.evolution, config.evolution.population
    worlds, evaluation_worlds = open_worlds(count), open_worlds(config.evaluations)
    policy = policy_for(config, worlds[0])
    lives = make_lives(policy, count)
    evaluated = make_lives(policy, config.evaluations, one_genome=True)

    @jax.jit
    def generation(state: Strategy, key: jax.Array) -> tuple[Genome, jax.Array]:
        """Every member's genome and key."""
        members = jnp.arange(count)
        genomes = map_over(lambda member, shared: ask(shared[0], shared[1], member), count)
        return genomes(members, (state, key)), jax.vmap(lambda m: lifetime_key(key, m // 2))(
            members
        )

    @jax.jit
    def learn(state: Strategy, key: jax.Array, found: jax.Array, genomes: Genome) -> Any:
        fitness = jax.vmap(partial(penalised, evolution))(found, genomes)
        return tell(evolution, state, key, fitness), summary(found, state)

    def step(state: Strategy, data: Any, key: jax.Array) -> tuple[Strategy, Metrics]:
        del data
        genomes, keys = generation(state, key)
        found = _mean_fitness(lives, worlds, genomes, keys, config.rollouts)
        return learn(state, key, found, genomes)

    def evaluate(state: Strategy, data: Any, key: jax.Array) -> Metrics:
        del data
        keys = jax.random.split(key, config.evaluations)
        found = _mean_fitness(evaluated, evaluation_worlds, state.genome, keys, config.rollouts)
        return {"fitness": found.mean(), "fitness_std": found.std()}

    return HostSystem(
        lambda key: begin(evolution, policy.init(key)),
        step,
        evaluate,
        STEP_METRICS,
        EVAL_METRICS,
        remedy(config),
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


def summary(found: jax.Array, state: Strategy) -> Metrics:
    """Summarise a generation whose members earned `found` [population]: of the finite ones.

    Those that are NaN or infinite are counted: an infinite fitness ranks, but has no mean. The mean
    is finite unless no member's fitness is.
    """
    finite = jnp.where(jnp.isfinite(found), found, jnp.nan)
    return {
        "fitness_mean": jnp.nanmean(finite),
        "fitness_best": jnp.nanmax(finite),
        "fitness_worst": jnp.nanmin(finite),
        "nan_members": jnp.isnan(found).sum().astype(jnp.float32),
        "infinite_members": jnp.isinf(found).sum().astype(jnp.float32),
        "sigma": state.sigma,
    }
