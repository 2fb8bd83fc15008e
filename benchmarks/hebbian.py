"""Hebbian networks: policy and plasticity of a population, its evolution, and a generation."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.machine import Rates, Sizes, fastest
from benchmarks.measure import Benchmark, Cost, Targets, Work
from tsar_jax.devices import map_over, split_cpu, usable_cores
from tsar_jax.environments.quadruped import (
    IDLE_STEPS,
    SIMULATOR_STEPS,
)
from tsar_jax.environments.quadruped_body import Body, build_model, motor_order
from tsar_jax.environments.quadruped_mujoco import MujocoQuadrupeds
from tsar_jax.networks.hebbian_network import FEATURES
from tsar_jax.systems.hebbian.evolution import (
    Evolution,
    Genome,
    make_strategy,
)
from tsar_jax.systems.hebbian.policy import Policy, PolicyConfig, make_policy
from tsar_jax.systems.hebbian.rollouts import batch_policy, host_fitness

FLOAT_BYTES = 4
PASSES = 4
"""Over an array, in one call that measures the memory."""
STEP_PASSES = 7
"""Over arrays as large as the plastic weights, by a step: weights and five coefficients read,
weights written."""
QUADRUPED, PIXELS = (28, 8), (FEATURES, 3)
"""Inputs and outputs of the published networks; of the pixel one, behind its convolutions."""


def spread_stream_rates(sizes: Sizes) -> Rates:
    """Bytes/s, read and written, of x <- a x + b in place on all devices at once."""
    devices = jax.local_devices()
    mesh = Mesh(np.asarray(devices), ("share",))
    length = sizes.memory // FLOAT_BYTES // len(devices) * len(devices)
    x = jax.device_put(jnp.ones(length), NamedSharding(mesh, P("share")))

    def share(x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, PASSES, lambda _, x: 0.999 * x + 1e-3, x)

    scale = jax.jit(
        jax.shard_map(share, mesh=mesh, in_specs=P("share"), out_specs=P("share")),
        donate_argnums=0,
    )

    def call() -> jax.Array:
        nonlocal x
        x = scale(x)
        return x

    rate = 2 * FLOAT_BYTES * length * PASSES / fastest(call, sizes.tries)
    return {f"stream_{len(devices)}_devices": rate}


def synapses(sizes: tuple[int, ...]) -> int:
    """Of layers of these units."""
    return sum(into * out for into, out in itertools.pairwise(sizes))


def population_step(ends: tuple[int, int], count: int, config: PolicyConfig) -> Work:
    """One step of every member's policy and plasticity; a unit is one agent's step."""
    split_cpu()
    policy = make_policy(config, ends[:1], ends[1])
    genomes, weights = jax.jit(functools.partial(born, policy, count))(jax.random.key(0))
    observations = jax.random.normal(jax.random.key(1), (count, ends[0]))

    def function(weights: Any, call: jax.Array, genomes: Any, seen: jax.Array) -> tuple[Any, Any]:
        def update(each: Any, _: Any) -> Any:
            genome, weights, observation = each
            return policy.learner.update(genome, weights, observation, None)

        # Other observations at every call, so that nothing is computed but once.
        return map_over(update, count, together=True)((genomes, weights, seen + 1e-3 * call), ())

    amount = STEP_PASSES * FLOAT_BYTES * synapses((ends[0], *config.hidden, ends[1]))
    cost = Cost(float(amount), "byte", spread_stream_rates)
    return Work(function, weights, (genomes, observations), count, (cost,))


def born(policy: Policy, count: int, key: jax.Array) -> tuple[Any, Any]:
    """Genomes and weights at birth of `count` members, which have nothing in common."""

    def one(key: jax.Array, _: Any) -> tuple[Any, Any]:
        # Coefficients so small that weights stay finite without being normalised.
        genome = jax.tree.map(lambda leaf: 1e-3 * leaf, policy.init(key))
        return policy.prepare(genome), policy.learner.init(genome, key)

    return map_over(one, count)(jax.random.split(key, count), ())


def update(population: int, coefficients: int) -> Work:
    """The step that evolution makes after a generation; a unit is the step.

    At least, every member's coefficients are read once.
    """
    split_cpu()
    genome = Genome(jnp.zeros(coefficients), ())
    strategy = make_strategy(Evolution(population=population), genome)
    losses = jax.random.normal(jax.random.key(0), (population,))

    def function(state: Any, call: jax.Array, losses: jax.Array) -> tuple[Any, Any]:
        key = jax.random.fold_in(jax.random.key(0), call)
        return strategy.tell(state, strategy.ask(state, key), losses), ()

    state = jax.jit(lambda: strategy.init(genome))()
    amount = float(FLOAT_BYTES * population * coefficients)
    return Work(function, state, (losses,), 1, (Cost(amount, "byte", spread_stream_rates),))


class Recorded(MujocoQuadrupeds):
    """Quadrupeds that remember where the latest episode began, and every torque in it."""

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        observations = super().reset(seeds)
        self.start = self.state
        self.torques: list[np.ndarray] = []
        return observations

    def step(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.torques.append(np.array(outputs))
        return super().step(outputs)


def generation(population: int, limit: int) -> Work:
    """Lifetimes of a generation of quadrupeds, short ones; a unit is one member's control step.

    At least, the engine's own threads simulate the same torques from the same states in one call.
    """
    split_cpu()
    envs = Recorded([Body()] * population)
    envs.max_episode_steps = limit
    policy = make_policy(PolicyConfig(bounded=True), envs.observation_shape, envs.num_actions)
    policies = batch_policy(policy, population)
    genomes = jax.vmap(policy.init)(jax.random.split(jax.random.key(0), population))

    def function(state: Any, call: np.int32, genomes: Any) -> tuple[Any, Any]:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), call), population)
        return state, host_fitness(policies, envs, genomes, keys)

    def engine(sizes: Sizes) -> Rates:
        return {"engine": engine_rate(envs, sizes.tries)}

    steps = IDLE_STEPS + limit
    cost = Cost(1.0, "control step", engine)
    return Work(function, (), (genomes,), population * steps, (cost,), compiled=False)


def engine_rate(envs: Recorded, tries: int) -> float:
    """Control steps per second of MuJoCo's threads, through the latest episode again."""
    import mujoco  # not above: the other benchmarks do without it
    from mujoco import rollout

    model = build_model(Body())
    torques = np.stack(envs.torques, 1)[..., motor_order(model)].repeat(SIMULATOR_STEPS, 1)
    start = np.concatenate([np.zeros((envs.count, 1)), *envs.start], axis=1)
    scratch = [mujoco.MjData(model) for _ in range(usable_cores())]
    with rollout.Rollout(nthread=len(scratch)) as pool:
        seconds = fastest(lambda: pool.rollout(model, scratch, start, torques), tries)
    return envs.count * len(envs.torques) / seconds


def _step(name: str, description: str, ends: tuple[int, int], config: PolicyConfig) -> Benchmark:
    return Benchmark(
        name,
        description,
        functools.partial(population_step, ends, 200, config),
        functools.partial(population_step, ends, 4, config),
        Targets(ratio=1 / 0.6),
    )


BENCHMARKS = (
    _step(
        "hebbian_quadruped",
        "policy and plasticity of a quadruped, per agent-step of 200",
        QUADRUPED,
        PolicyConfig(normalised=False, bounded=True),
    ),
    _step(
        "hebbian_pixels",
        "plastic layers of a pixel policy, per agent-step of 200",
        PIXELS,
        PolicyConfig(),
    ),
    Benchmark(
        "hebbian_generation",
        "lifetimes of a generation of 200 quadrupeds, per control step",
        functools.partial(generation, 200, 60),
        functools.partial(generation, 2, 2),
        Targets(ratio=1 / 0.85),
    ),
    Benchmark(
        "evolution_step",
        "OpenAI-ES, 500 members of 456,640 coefficients",
        functools.partial(update, 500, 456_640),
        functools.partial(update, 4, 10),
    ),
)
