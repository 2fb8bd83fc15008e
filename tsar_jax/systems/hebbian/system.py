"""Hebbian networks under evolution: a generation is a step.

Najarro and Risi (2020), arXiv 2007.02686. Every member of a population has one rollout or more, in
an environment or in several bodies, and an evolution strategy moves the population's centre by
their fitness.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax import processes
from tsar_jax.devices import map_over, one_by_one
from tsar_jax.environments.registry import MakeEnvs, find_environments
from tsar_jax.environments.types import Environment, HostEnvironments, Variants
from tsar_jax.errors import UserError, check_positive
from tsar_jax.meta.evolution import lifetime_key, population_losses
from tsar_jax.meta.strategy import EvolutionState, Strategy
from tsar_jax.systems.hebbian.evolution import (
    Evolution,
    Genome,
    apply_weight_decay,
    make_strategy,
)
from tsar_jax.systems.hebbian.policy import Policy, PolicyConfig, make_policy
from tsar_jax.systems.hebbian.rollouts import (
    BatchedPolicy,
    batch_policy,
    host_fitness,
    lifetime_fitness,
)
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
    """Evolution of a plastic or static policy.

    Raises:
        UserError: a value is impossible.
    """

    environment: str = "cart_pole"
    """cart_pole, pendulum or car_racing, compiled; quadruped; any environment that gymnasium knows,
    such as CartPole-v1, CarRacing-v3 or Ant-v5; or, compiled too, one of gymnax or Brax, such as
    gymnax/Pendulum-v1 or brax/ant."""
    bodies: tuple[str, ...] = ("standard",)
    """Bodies of the quadruped: standard, or what differs from it, joined by +: a damaged leg and
    its length (right_front, left_back:0.2), a failed motor and its strength (left_front_hip,
    right_back_ankle:0.5), friction:0.3. A member's fitness is its mean over all of them.
    """
    engine: str = "auto"
    """Simulator of the quadruped: mujoco (threads of a CPU), mjx (compiled, for accelerators), or
    auto.
    """
    integrator: str = "RK4"
    """Integrator of the quadruped's motion: RK4, as Ant-v5 has it, or implicitfast, in a quarter of
    the time.
    """
    rollouts: int = 1
    """Lifetimes of a member in each environment, at least 1; its fitness is their mean."""
    limit: int | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)
    """Most steps of a lifetime while evolving, at least 1; None: as many as the environment has."""
    evaluations: int = 16
    """Lifetimes of the population's centre at an evaluation, at least 1."""
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
    """Return the evolution in the environments that a config names. Raises UserError."""
    envs = find_environments(
        config.environment, config.bodies, config.engine, config.integrator, config.limit
    )
    return host_system(config, envs) if callable(envs) else compiled_system(config, envs)


def compiled_system(config: HebbianConfig, variants: Variants) -> System:
    """Return evolution in a compiled environment, a generation in one program. There is no data."""
    evolution, policy = config.evolution, policy_for(config, variants.one(0))
    strategy = strategy_for(config, policy)

    def mean_fitness(genome: Genome, key: jax.Array) -> jax.Array:
        """Return the mean over the environment's variants, of one lifetime in each."""
        if variants.size == 1:
            return lifetime_fitness(policy, variants.one(0), genome, key)

        def fitness_in(parameters: Any) -> jax.Array:
            return lifetime_fitness(policy, variants.make(parameters), genome, key)

        return one_by_one(fitness_in)(variants.parameters).mean()

    def objective(genome: Genome, rollout: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        del rollout  # its key distinguishes it
        fitness = mean_fitness(genome, key)
        return -apply_weight_decay(evolution, fitness, genome), {"fitness": fitness}

    def step(
        state: EvolutionState, data: Any, key: jax.Array
    ) -> tuple[EvolutionState, Metrics, Arrays]:
        del data
        generation = strategy.ask(state, key)
        losses, metrics = population_losses(
            objective,
            strategy.member,
            generation,
            jnp.arange(config.rollouts),
            key,
            population=evolution.population,
        )
        after = strategy.tell(state, generation, losses)
        return after, summary(metrics["fitness"], strategy.sigma(state)), {}

    def evaluate(state: EvolutionState, data: Any, key: jax.Array) -> Metrics:
        del data
        keys = jax.random.split(key, config.evaluations)

        def of_lifetime(key: jax.Array, genome: Genome) -> jax.Array:
            rollouts = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(config.rollouts))
            return one_by_one(partial(mean_fitness, genome))(rollouts).mean()

        fitness = map_over(of_lifetime, config.evaluations)(keys, state.genome)
        return {"fitness": fitness.mean(), "fitness_std": fitness.std()}

    return System(
        lambda key: strategy.init(policy.init(key)),
        step,
        evaluate,
        remedy=remedy(config),
    )


def host_system(config: HebbianConfig, make_envs: MakeEnvs) -> System:
    """Return evolution in simulators outside JAX. There is no data.

    The policies of all members, and what happens between generations, are compiled. Each of several
    processes simulates its own share of the members, and all know the fitness of all.
    """
    evolution, count = config.evolution, config.evolution.population
    members = processes.own_share(count)
    envs, evaluation_envs = make_envs(len(members)), make_envs(config.evaluations)
    policy = policy_for(config, envs[0])
    strategy = strategy_for(config, policy)
    policies = batch_policy(policy, len(members))
    centre_policies = batch_policy(policy, config.evaluations, one_genome=True)

    @jax.jit
    def generation(
        state: EvolutionState, key: jax.Array, members: jax.Array
    ) -> tuple[Genome, jax.Array]:
        """Return each member's genome and key."""

        def genome_of(member: jax.Array, generation: Any) -> Genome:
            return strategy.member(generation, member)

        keys = jax.vmap(lambda member: lifetime_key(key, member // 2))(members)
        return map_over(genome_of, len(members))(members, strategy.ask(state, key)), keys

    @jax.jit
    def losses_of(fitness: jax.Array, genomes: Genome) -> jax.Array:
        return -jax.vmap(partial(apply_weight_decay, evolution))(fitness, genomes)

    @jax.jit
    def learn(state: EvolutionState, key: jax.Array, fitness: Any, losses: Any) -> Any:
        # Proposed anew, so that the processes need not pass it on.
        after = strategy.tell(state, strategy.ask(state, key), losses)
        return after, summary(fitness, strategy.sigma(state))

    def step(
        state: EvolutionState, data: Any, key: jax.Array
    ) -> tuple[EvolutionState, Metrics, Arrays]:
        del data
        with processes.alone():
            genomes, keys = generation(*processes.own_copy((state, key)), members)
            fitness = _mean_fitness(policies, envs, genomes, keys, config.rollouts)
            losses = losses_of(fitness, genomes)
        fitness, losses = processes.join_shares((fitness, losses), count)
        return *learn(state, key, fitness, losses), {}

    def evaluate(state: EvolutionState, data: Any, key: jax.Array) -> Metrics:
        del data
        with processes.alone():
            # All of them in every process: in parts of another size, bits of a product differ.
            genome, key = processes.own_copy((state.genome, key))
            keys = jax.random.split(key, config.evaluations)
            fitness = _mean_fitness(centre_policies, evaluation_envs, genome, keys, config.rollouts)
        return {"fitness": fitness.mean(), "fitness_std": fitness.std()}

    return System(
        lambda key: strategy.init(policy.init(key)),
        step,
        evaluate,
        remedy(config),
        HOST_METRICS,
    )


def _mean_fitness(
    policies: BatchedPolicy,
    envs: Sequence[HostEnvironments],
    genomes: Genome,
    keys: jax.Array,
    rollouts: int,
) -> jax.Array:
    """Return each agent's mean fitness over environments and rollouts, float32 [count]."""
    fitness = [
        host_fitness(
            policies, env, genomes, jax.vmap(partial(jax.random.fold_in, data=rollout))(keys)
        )
        for env in envs
        for rollout in range(rollouts)
    ]
    # Infinities of both signs have the mean NaN, which ranks a member last.
    with np.errstate(invalid="ignore"):
        return jnp.asarray(np.mean(fitness, axis=0), jnp.float32)


def policy_for(config: HebbianConfig, env: Environment | HostEnvironments) -> Policy:
    """Return a config's policy, for an environment's observations and actions."""
    return make_policy(config.policy, env.observation_shape, env.num_actions)


def strategy_for(config: HebbianConfig, policy: Policy) -> Strategy:
    """Return a config's strategy, for the genomes of a policy. Raises UserError."""
    return make_strategy(config.evolution, jax.eval_shape(policy.init, jax.random.key(0)))


def remedy(config: HebbianConfig) -> str:
    """Return advice for when no member of a generation has a finite fitness."""
    return (
        f"no member's fitness in {config.environment} was a finite number, so look for what makes "
        "its rewards NaN or infinite, or choose another environment in a new run"
    )


def summary(fitness: jax.Array, sigma: jax.Array) -> Metrics:
    """Summarise a generation by the finite values of its members' fitness.

    NaN and infinite values are counted: an infinite fitness ranks, but has no mean. The mean is
    finite unless no member's fitness is.

    Args:
        fitness: of the members, float [population].
        sigma: standard deviation of the generation's noise, a mean over parameters.
    """
    finite = jnp.where(jnp.isfinite(fitness), fitness, jnp.nan)
    return {
        "fitness_mean": jnp.nanmean(finite),
        "fitness_best": jnp.nanmax(finite),
        "fitness_worst": jnp.nanmin(finite),
        "nan_members": jnp.isnan(fitness).sum().astype(jnp.float32),
        "infinite_members": jnp.isinf(fitness).sum().astype(jnp.float32),
        "sigma": jnp.asarray(sigma, jnp.float32),
    }
