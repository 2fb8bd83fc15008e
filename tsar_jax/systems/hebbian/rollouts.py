"""Lifetimes of plastic policies: what they earn, step by step or in all.

A lifetime in a compiled environment is part of one program. Where a simulator runs outside JAX, all
members of a population live in lockstep, with one compiled call per step for all their policies.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.devices import map_over, on_all_devices
from tsar_jax.environments.types import Environment, HostEnvironments
from tsar_jax.systems.hebbian.policy import Policy

Genome = Any
Weights = Any

BIRTH, WORLD = 0, 1
"""What a lifetime's key is folded with for its weights at birth and for its environment."""


def lifetime_fitness(
    policy: Policy, environment: Environment, genome: Genome, key: jax.Array
) -> jax.Array:
    """The sum of rewards until the episode ends; NaN where a reward was NaN."""

    def running(lived: Any) -> jax.Array:
        *_, time, done = lived
        return ~done & (time < environment.limit)

    def step(lived: Any) -> Any:
        state, weights, total, time, _ = lived
        state, weights, reward, done = live_step(policy, environment, genome, state, weights)
        return state, weights, total + reward, time + 1, done

    genome = policy.prepare(genome)
    state, weights = begin_life(policy, environment, genome, key)
    start = state, weights, jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return lax.while_loop(running, step, start)[2]


def begin_life(
    policy: Policy, environment: Environment, genome: Genome, key: jax.Array
) -> tuple[Any, Weights]:
    """State and weights at birth, of a prepared genome."""
    weights = policy.learner.init(genome, jax.random.fold_in(key, BIRTH))
    return environment.reset(jax.random.fold_in(key, WORLD)), weights


def live_step(
    policy: Policy, environment: Environment, genome: Genome, state: Any, weights: Weights
) -> tuple[Any, Weights, jax.Array, jax.Array]:
    """One step of policy and environment: state, weights, reward, done."""
    weights, outputs = policy.learner.update(genome, weights, environment.observe(state), None)
    state, reward, done = environment.step(state, environment.act(outputs))
    return state, weights, reward, done


class Trace(NamedTuple):
    """One lifetime, or several along a leading axis.

    rewards float [limit], 0 after the end; lived bool [limit]: whether the step took place;
    watched: the weights before each of the steps that were asked for, [steps asked for, ...];
    after the end they stay as they are.
    """

    rewards: Any
    lived: Any
    watched: Any


def trace(
    policy: Policy,
    environment: Environment,
    genome: Genome,
    key: jax.Array,
    watch: tuple[int, ...] = (),
) -> Trace:
    """A lifetime step by step. watch: steps, below the limit, before which the weights are kept."""
    steps, genome = jnp.asarray(watch, jnp.int32), policy.prepare(genome)

    def step(carry: Any, time: Any) -> tuple[Any, Any]:
        state, weights, done, watched = carry
        watched = jax.tree.map(
            lambda kept, now: jnp.where(
                (steps == time).reshape(-1, *[1] * now.ndim), now[None], kept
            ),
            watched,
            weights,
        )
        state, learned, reward, ended = live_step(policy, environment, genome, state, weights)
        weights = jax.tree.map(lambda old, new: jnp.where(done, old, new), weights, learned)
        reward = jnp.where(done, 0.0, reward)
        return (state, weights, done | ended, watched), (reward, ~done)

    state, weights = begin_life(policy, environment, genome, key)
    watched = jax.tree.map(lambda w: jnp.zeros((len(watch), *w.shape), w.dtype), weights)
    start: Any = state, weights, jnp.zeros((), bool), watched
    end, (rewards, lived) = lax.scan(step, start, jnp.arange(environment.limit))
    return Trace(rewards, lived, end[-1])


class Lives(NamedTuple):
    """The policies of several agents, compiled, each on its share of the devices.

    agents: how many
    prepare: (genomes) -> genomes, as the others take them
    init: (genomes, keys) -> weights
    update: (genomes, weights, observations) -> (weights, outputs), the weights donated
    """

    prepare: Callable[[Genome], Genome]
    init: Callable[..., Weights]
    update: Callable[..., tuple[Weights, jax.Array]]
    agents: int


def make_lives(policy: Policy, count: int, *, one_genome: bool = False) -> Lives:
    """Compiles a policy for `count` agents with a genome each, or one genome for all of them."""

    def split(each: Any, shared: Any) -> tuple[Any, Any]:
        return (shared, each) if one_genome else each

    def init_one(each: Any, shared: Any) -> Weights:
        genome, key = split(each, shared)
        return policy.learner.init(genome, jax.random.fold_in(key, BIRTH))

    def update_one(each: Any, shared: Any) -> tuple[Weights, jax.Array]:
        genome, (weights, observation) = split(each, shared)
        return policy.learner.update(genome, weights, observation, None)

    def spread(function: Callable[[Any, Any], Any], together: bool) -> Callable[..., Any]:
        mapped = map_over(function, count, together=together)
        if one_genome:
            return lambda genome, each: mapped(each, genome)
        return lambda genomes, each: mapped((genomes, each), ())

    def prepare(genomes: Genome) -> Genome:
        """Each on the device that has its agent: else every step would take it there."""
        if one_genome:
            return on_all_devices(policy.prepare(genomes))
        return map_over(lambda genome, _: policy.prepare(genome), count)(genomes, ())

    update = spread(update_one, together=True)
    return Lives(
        jax.jit(prepare),
        jax.jit(spread(init_one, together=False)),
        jax.jit(lambda genomes, *each: update(genomes, each), donate_argnums=1),
        count,
    )


class HostStep(NamedTuple):
    """One step of `count` agents: rewards [count], done [count] and the weights after it.

    The next step takes the weights' memory. Those of agents that are done mean nothing.
    """

    rewards: np.ndarray
    done: np.ndarray
    weights: Weights


def host_steps(
    lives: Lives, environments: HostEnvironments, genomes: Genome, keys: jax.Array
) -> Iterator[HostStep]:
    """Lockstep lifetimes until all are done or at their limit. keys [count], one per agent.

    Agents whose keys are equal live in equal worlds with equal weights at birth.
    """
    seeds = jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, WORLD)))(keys)
    genomes = lives.prepare(genomes)
    weights = lives.init(genomes, keys)
    observations = environments.reset(np.asarray(seeds))
    done = np.zeros(lives.agents, bool)
    for _ in range(environments.limit):
        weights, outputs = lives.update(genomes, weights, observations)
        observations, rewards, ended = environments.step(np.asarray(outputs))
        rewards = np.where(done, 0.0, rewards)
        done = done | ended
        yield HostStep(rewards, done, weights)
        if done.all():
            return


def host_fitness(
    lives: Lives, environments: HostEnvironments, genomes: Genome, keys: jax.Array
) -> np.ndarray:
    """Sums of rewards [count] of lifetimes in lockstep; NaN where a reward was NaN."""
    total = np.zeros(lives.agents)
    for step in host_steps(lives, environments, genomes, keys):
        total += step.rewards
    return total


def traces(
    policy: Policy,
    world: Environment | HostEnvironments,
    genome: Genome,
    keys: jax.Array,
    watch: tuple[int, ...] = (),
) -> Trace:
    """Lifetimes of one genome, one per key [n]; simulators must be as many as the keys.

    Arrays as of `Trace`, on the host, with the lifetimes as leading axis; of what is watched, the
    second after the steps that were asked for.
    """
    if isinstance(world, Environment):
        many = map_over(lambda key, g: trace(policy, world, g, key, watch), len(keys))
        return jax.device_get(jax.jit(many)(keys, genome))
    lives = make_lives(policy, len(keys), one_genome=True)
    rewards = np.zeros((len(keys), world.limit))
    lived = np.zeros((len(keys), world.limit), bool)
    alive = np.ones(len(keys), bool)
    last = max(watch, default=0)
    weights = lives.init(lives.prepare(genome), keys) if watch else ()
    watched = {0: jax.device_get(weights)}
    for time, step in enumerate(host_steps(lives, world, genome, keys)):
        rewards[:, time], lived[:, time] = step.rewards, alive
        if time < last:
            weights = _where(alive, step.weights, weights)
        if time + 1 in watch:
            watched[time + 1] = jax.device_get(weights)
        alive = ~step.done
    at_the_end = jax.device_get(weights)
    asked = [watched.get(time, at_the_end) for time in watch]
    kept = jax.tree.map(lambda *times: np.stack(times, 1), *asked) if asked else ()
    return Trace(rewards, lived, kept)


@jax.jit
def _where(chosen: jax.Array, ones: Any, others: Any) -> Any:
    """Of agents that are chosen [count], the ones; else the others. Leading axes [count]."""
    return jax.tree.map(
        lambda one, other: jnp.where(chosen.reshape(-1, *[1] * (one.ndim - 1)), one, other),
        ones,
        others,
    )
