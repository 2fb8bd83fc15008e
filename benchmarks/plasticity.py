"""Episodes of learned plasticity rules: a lifetime of 250 online updates and its gradient."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.machine import stream_rates
from benchmarks.measure import Benchmark, Cost, Work
from tsar_jax.data import load
from tsar_jax.devices import split_cpu
from tsar_jax.systems.learned_rules.presets import PRESETS
from tsar_jax.systems.learned_rules.system import LearnedRuleConfig, make_system
from tsar_jax.training.loop import make_keys
from tsar_jax.training.programs import make_programs

PAPER = dataclasses.replace(PRESETS["paper"].config, seeds=1)
TINY = dataclasses.replace(PRESETS["smoke"].config, seeds=1)
OUTPUTS, PIXELS = 47, 784
FLOAT_BYTES = 4

FORWARD_PASSES = 4
"""Over arrays as large as the weights, by an update: weights read for activities, feedback weights
for errors, weights read and written by the change."""
BACKWARD_PASSES = 8
"""Weights read and written as the change is taken back; weights and feedback weights read, each
for its signals' gradient; the gradient of the weights read for both sides of the change, read and
written."""
OJA_PASSES = 2
"""Weights read for Oja's term, and for its gradient."""


def weight_bytes(config: LearnedRuleConfig) -> int:
    """Of all layers: 178,490 weights at the published widths."""
    sizes = (PIXELS, *config.hidden, OUTPUTS)
    return FLOAT_BYTES * sum(into * out for into, out in itertools.pairwise(sizes))


def episode_bytes(config: LearnedRuleConfig) -> float:
    """Bytes that one episode moves at least, where weights do not stay in registers."""
    passes = FORWARD_PASSES + BACKWARD_PASSES + OJA_PASSES * ("oja" in config.terms)
    return float(config.classes * config.learn * passes * weight_bytes(config))


def episode(config: LearnedRuleConfig) -> Work:
    """One episode of every seed, as the training loop runs it; a unit is one seed's."""
    if config.seeds > 1:
        split_cpu()
    images = load("emnist").splits["train"].images
    # Weights, their gradient and the feedback weights are what a cache has to hold.
    probe = functools.partial(stream_rates, working_sets=(3 * weight_bytes(config),))
    cost = Cost(episode_bytes(config), "byte", probe)
    system, keys = make_system(config, OUTPUTS), make_keys(0, config.seeds)
    programs = make_programs(system, images, keys.init, 1, seeds=config.seeds)

    def function(state: Any, call: jax.Array, data: Any, root: jax.Array) -> tuple[Any, Any]:
        state, *found = programs.chunk(state, data, root, call, jnp.int32(1))
        return state, found

    arguments = (jax.device_put(images), keys.step)
    return Work(function, programs.init(keys.init), arguments, config.seeds, (cost,))


def _benchmark(
    name: str, description: str, *, optional: bool = False, **changes: object
) -> Benchmark:
    full, small = (
        functools.partial(episode, dataclasses.replace(config, **changes))  # type: ignore[arg-type]
        for config in (PAPER, TINY)
    )
    return Benchmark(name, description, full, small, optional=optional)


POOL = PRESETS["pool"].config.terms

BENCHMARKS = (
    _benchmark("rule_episode", "an episode of F_bio, one seed"),
    _benchmark("rule_episode_pool", "the same, all ten terms", terms=POOL),
    _benchmark("rule_episode_20", "an episode of F_bio, per seed of 20 together", seeds=20),
    _benchmark("rule_episode_store", "F_bio, all weights stored", optional=True, memory="store"),
    _benchmark(
        "rule_episode_rematerialise",
        "F_bio, weights computed anew",
        optional=True,
        memory="rematerialise",
    ),
)
