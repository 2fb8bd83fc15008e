"""Rollouts of plastic policies: one lifetime each, step by step or summed up.

A rollout in a compiled environment is part of one program. Where a simulator runs outside JAX, all
members of a population act in lockstep, with one compiled call per step for all their policies.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.devices import map_over, on_all_devices
from tsar_jax.environments.types import Environment, HostEnvironments, Variants
from tsar_jax.systems.hebbian.policy import Policy

Genome = Any
Weights = Any

INIT_FOLD, ENVIRONMENT_FOLD = 0, 1
"""Values that a lifetime's key is folded with for its initial weights and for its environment."""


def lifetime_fitness(
    policy: Policy, environment: Environment, genome: Genome, key: jax.Array
) -> jax.Array:
    """Return the sum of rewards until the episode ends; NaN where a reward was NaN."""

    def running(carry: Any) -> jax.Array:
        *_, time, done = carry
        return ~done & (time < environment.max_episode_steps)

    def step(carry: Any) -> Any:
        state, weights, episode_return, time, _ = carry
        state, weights, reward, done = rollout_step(policy, environment, genome, state, weights)
        return state, weights, episode_return + reward, time + 1, done

    genome = policy.prepare(genome)
    state, weights = init_rollout(policy, environment, genome, key)
    start = state, weights, jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return lax.while_loop(running, step, start)[2]


def init_rollout(
    policy: Policy, environment: Environment, genome: Genome, key: jax.Array
) -> tuple[Any, Weights]:
    """Return the environment's state and the initial weights, of a prepared genome."""
    weights = policy.learner.init(genome, jax.random.fold_in(key, INIT_FOLD))
    return environment.reset(jax.random.fold_in(key, ENVIRONMENT_FOLD)), weights


def rollout_step(
    policy: Policy, environment: Environment, genome: Genome, state: Any, weights: Weights
) -> tuple[Any, Weights, jax.Array, jax.Array]:
    """Step policy and environment once; return state, weights, reward, done."""
    weights, outputs = policy.learner.update(genome, weights, environment.observe(state), None)
    state, reward, done = environment.step(state, environment.act(outputs))
    return state, weights, reward, done


class Trace(NamedTuple):
    """One rollout, or several along a leading axis.

    rewards: float [max_episode_steps], 0 after the end.
    mask: bool [max_episode_steps], whether the step took place.
    watched: weights before each requested step, [requested steps, ...]; after the end they stay as
        they are.
    """

    rewards: Any
    mask: Any
    watched: Any


def trace(
    policy: Policy,
    environment: Environment,
    genome: Genome,
    key: jax.Array,
    watch: tuple[int, ...] = (),
) -> Trace:
    """Return a rollout step by step.

    Args:
        policy, environment: of the agent.
        genome: not prepared.
        key: randomness of the lifetime.
        watch: steps, below max_episode_steps, before which the weights are recorded.
    """
    steps, genome = jnp.asarray(watch, jnp.int32), policy.prepare(genome)

    def step(carry: Any, time: Any) -> tuple[Any, Any]:
        state, weights, done, watched = carry
        watched = jax.tree.map(
            lambda recorded, now: jnp.where(
                (steps == time).reshape(-1, *[1] * now.ndim), now[None], recorded
            ),
            watched,
            weights,
        )
        state, updated, reward, ended = rollout_step(policy, environment, genome, state, weights)
        weights = jax.tree.map(lambda old, new: jnp.where(done, old, new), weights, updated)
        reward = jnp.where(done, 0.0, reward)
        return (state, weights, done | ended, watched), (reward, ~done)

    state, weights = init_rollout(policy, environment, genome, key)
    watched = jax.tree.map(lambda w: jnp.zeros((len(watch), *w.shape), w.dtype), weights)
    start: Any = state, weights, jnp.zeros((), bool), watched
    end, (rewards, mask) = lax.scan(step, start, jnp.arange(environment.max_episode_steps))
    return Trace(rewards, mask, end[-1])


class BatchedPolicy(NamedTuple):
    """Compiled policies of several agents, divided among the devices.

    prepare: (genomes) -> genomes, as the others take them
    init: (genomes, keys) -> weights
    update: (genomes, weights, observations) -> (weights, outputs), the weights donated
    agents: number of agents
    """

    prepare: Callable[[Genome], Genome]
    init: Callable[..., Weights]
    update: Callable[..., tuple[Weights, jax.Array]]
    agents: int


def batch_policy(policy: Policy, count: int, *, one_genome: bool = False) -> BatchedPolicy:
    """Compile a policy for `count` agents with a genome each, or one genome for all of them."""

    def split(per_agent: Any, shared: Any) -> tuple[Any, Any]:
        return (shared, per_agent) if one_genome else per_agent

    def init_one(per_agent: Any, shared: Any) -> Weights:
        genome, key = split(per_agent, shared)
        return policy.learner.init(genome, jax.random.fold_in(key, INIT_FOLD))

    def update_one(per_agent: Any, shared: Any) -> tuple[Weights, jax.Array]:
        genome, (weights, observation) = split(per_agent, shared)
        return policy.learner.update(genome, weights, observation, None)

    def spread(function: Callable[[Any, Any], Any], together: bool) -> Callable[..., Any]:
        mapped = map_over(function, count, together=together)
        if one_genome:
            return lambda genome, per_agent: mapped(per_agent, genome)
        return lambda genomes, per_agent: mapped((genomes, per_agent), ())

    def prepare(genomes: Genome) -> Genome:
        """Prepare each genome on its agent's device: else every step would transfer it there."""
        if one_genome:
            return on_all_devices(policy.prepare(genomes))
        return map_over(lambda genome, _: policy.prepare(genome), count)(genomes, ())

    update = spread(update_one, together=True)
    return BatchedPolicy(
        jax.jit(prepare),
        jax.jit(spread(init_one, together=False)),
        jax.jit(lambda genomes, *per_agent: update(genomes, per_agent), donate_argnums=1),
        count,
    )


class HostStep(NamedTuple):
    """Result of one step of `count` agents.

    The next step takes the weights' memory. Weights of agents that are done mean nothing.

    rewards: float [count]. done: bool [count]. weights: those after the step.
    """

    rewards: np.ndarray
    done: np.ndarray
    weights: Weights


def host_steps(
    policies: BatchedPolicy, environments: HostEnvironments, genomes: Genome, keys: jax.Array
) -> Iterator[HostStep]:
    """Yield the steps of lockstep rollouts until all are done or at max_episode_steps.

    Agents whose keys are equal have equal environments and equal initial weights.

    Args:
        policies: compiled for `count` agents.
        environments: `count` of them.
        genomes: of the agents, or one for all, as `policies` takes them.
        keys: [count], one per agent.
    """
    seeds = jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, ENVIRONMENT_FOLD)))(keys)
    genomes = policies.prepare(genomes)
    weights = policies.init(genomes, keys)
    observations = environments.reset(np.asarray(seeds))
    done = np.zeros(policies.agents, bool)
    for _ in range(environments.max_episode_steps):
        weights, outputs = policies.update(genomes, weights, observations)
        observations, rewards, ended = environments.step(np.asarray(outputs))
        rewards = np.where(done, 0.0, rewards)
        done = done | ended
        yield HostStep(rewards, done, weights)
        if done.all():
            return


def host_fitness(
    policies: BatchedPolicy, environments: HostEnvironments, genomes: Genome, keys: jax.Array
) -> np.ndarray:
    """Return sums of rewards [count] of lockstep rollouts; NaN where a reward was NaN."""
    episode_return = np.zeros(policies.agents)
    for step in host_steps(policies, environments, genomes, keys):
        episode_return += step.rewards
    return episode_return


def traces(
    policy: Policy,
    worlds: Variants | Sequence[HostEnvironments],
    genome: Genome,
    keys: jax.Array,
    watch: tuple[int, ...] = (),
) -> Iterator[Trace]:
    """Yield the rollouts of one genome in each of several worlds, one rollout per key [n].

    Args:
        policy: of the agent.
        worlds: variants of a compiled environment, which share one program; or simulators, each as
            many as the keys.
        genome: not prepared.
        keys: randomness of the lifetimes.
        watch: as of `trace`.

    Yields:
        A `Trace` on the host, with the rollouts as leading axis of every array; in `watched` the
        requested steps are the second axis.
    """
    if not isinstance(worlds, Variants):
        policies = batch_policy(policy, len(keys), one_genome=True)
        for env in worlds:
            yield _host_traces(policies, env, genome, keys, watch)
        return

    @jax.jit
    def live(keys: jax.Array, genome: Genome, parameters: Any) -> Trace:
        env = worlds.make(parameters)
        return map_over(lambda key, g: trace(policy, env, g, key, watch), len(keys))(keys, genome)

    for index in range(worlds.size):
        yield jax.device_get(live(keys, genome, worlds.parameters_of(index)))


def _host_traces(
    policies: BatchedPolicy,
    env: HostEnvironments,
    genome: Genome,
    keys: jax.Array,
    watch: tuple[int, ...],
) -> Trace:
    """Return the rollouts in one world of simulators, as `traces` yields them."""
    rewards = np.zeros((len(keys), env.max_episode_steps))
    mask = np.zeros((len(keys), env.max_episode_steps), bool)
    alive = np.ones(len(keys), bool)
    last = max(watch, default=0)
    weights = policies.init(policies.prepare(genome), keys) if watch else ()
    watched = {0: jax.device_get(weights)}
    for time, step in enumerate(host_steps(policies, env, genome, keys)):
        rewards[:, time], mask[:, time] = step.rewards, alive
        if time < last:
            weights = _select_agents(alive, step.weights, weights)
        if time + 1 in watch:
            watched[time + 1] = jax.device_get(weights)
        alive = ~step.done
    final_weights = jax.device_get(weights)
    requested = [watched.get(time, final_weights) for time in watch]
    stacked = jax.tree.map(lambda *times: np.stack(times, 1), *requested) if requested else ()
    return Trace(rewards, mask, stacked)


@jax.jit
def _select_agents(mask: jax.Array, new: Any, old: Any) -> Any:
    """Return `new` for agents whose mask [count] is true, else `old`. Leading axes are [count]."""
    return jax.tree.map(
        lambda x, y: jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y),
        new,
        old,
    )
