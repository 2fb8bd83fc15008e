"""Meta-steps of ANML and OML, and the last layer's update at meta-test."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.anml_costs import (
    TRUNK_SIDES,
    head_state_bytes,
    head_update_bytes,
    meta_step_flops,
)
from benchmarks.machine import matmul_rates, stream_rates
from benchmarks.measure import Benchmark, Cost, Targets, Work
from benchmarks.meta_step import step_of
from tsar_jax.data import omniglot
from tsar_jax.networks import init_params
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network, make_system
from tsar_jax.systems.episodic.anml_presets import CPU
from tsar_jax.systems.episodic.meta_test_lifetime import frozen_activations, learn_stream
from tsar_jax.training.programs import make_programs

PAPER = AnmlConfig()
SMALL = AnmlConfig(
    channels=4, gate_channels=4, hidden_features=8, inner_updates=4, remember=4, microbatch=100
)
PEAK_MEMORY = 3e9
COMPILE_SECONDS = 15.0


def meta_step(config: AnmlConfig) -> Work:
    """One meta-step on real Omniglot, as the system computes it."""
    return Work(*step_of(make_system(config), omniglot.load_on_device()), 1, (_arithmetic(config),))


def training_chunk(config: AnmlConfig, steps: int) -> Work:
    """Meta-steps as the training loop runs them, several in one compiled call."""
    init_key, step_key = jax.random.split(jax.random.key(0))
    data = omniglot.load_on_device()
    programs = make_programs(make_system(config), data, init_key, steps)

    def function(state: Any, call: jax.Array, data: Any, root: jax.Array) -> tuple[Any, Any]:
        state, *found = programs.chunk(state, data, root, call * steps, jnp.int32(steps))
        return state, found

    state = programs.init(init_key)
    return Work(function, state, (data, step_key), steps, (_arithmetic(config),))


def _arithmetic(config: AnmlConfig) -> Cost:
    # The product that most of ANML's arithmetic is: the second convolution of the query set.
    query = config.remember + config.inner_updates
    product = (query * TRUNK_SIDES[1] ** 2, 9 * config.channels, config.channels)
    probe = functools.partial(matmul_rates, shapes=(product,))
    return Cost(meta_step_flops(config), "FLOP", probe)


def meta_test_update(config: AnmlConfig, updates: int, *, losses: bool = False) -> Work:
    """Adam updates of the output layer alone, on features of unseen characters.

    losses: also return the loss before each update, which the meta-test has no use for.
    """
    network = make_network(config)
    params = jax.jit(lambda key: init_params(network, key))(jax.random.key(0))
    plastic = mask(params, ("head",))
    classes, learn = updates // 15, 15
    images = omniglot.load_on_device()["evaluation"][:classes, :learn]
    activations = jax.jit(
        lambda p, x: frozen_activations(network, p, plastic, x, pixels=config.pixels)
    )(params, images)
    labels = jnp.asarray(np.repeat(np.arange(classes, dtype=np.int32), learn))

    def function(params: Any, _: jax.Array, activations: Any, labels: jax.Array) -> tuple[Any, Any]:
        learned, values = learn_stream(
            network, params, plastic, activations, labels, learning_rate=1e-3
        )
        return learned, values if losses else None

    features, outputs = params["head"]["kernel"].shape
    probe = functools.partial(stream_rates, working_sets=(head_state_bytes(features, outputs),))
    traffic = head_update_bytes(features, outputs)
    return Work(
        function, params, (activations, labels), labels.size, (Cost(traffic, "byte", probe),)
    )


def _meta_step(
    name: str, description: str, config: AnmlConfig, ratio: float | None, *, optional: bool = False
) -> Benchmark:
    small = dataclasses.replace(
        SMALL, model=config.model, order=config.order, remat=config.remat, plastic=config.plastic
    )
    return Benchmark(
        name,
        description,
        functools.partial(meta_step, config),
        functools.partial(meta_step, small),
        Targets(ratio, PEAK_MEMORY, COMPILE_SECONDS),
        optional,
    )


SECOND = dataclasses.replace(PAPER, order="second")
CPU_SECOND = dataclasses.replace(CPU, order="second")
CPU_OML = dataclasses.replace(CPU, model="oml")
PAPER_OML = dataclasses.replace(PAPER, model="oml")

BENCHMARKS = (
    _meta_step("anml_first_order", "ANML meta-step, paper width", PAPER, 1.3),
    _meta_step("anml_second_order", "the same, through the inner loop", SECOND, 2.5),
    _meta_step(
        "anml_second_order_remat",
        "the same, the inner loop recomputed",
        dataclasses.replace(SECOND, remat=True),
        None,
        optional=True,
    ),
    Benchmark(
        "anml_training_chunk",
        "ANML meta-steps, paper width, 5 in a call of the training loop",
        functools.partial(training_chunk, PAPER, 5),
        functools.partial(training_chunk, SMALL, 5),
        Targets(1.3, PEAK_MEMORY, COMPILE_SECONDS),
        optional=True,
    ),
    Benchmark(
        "meta_test_update",
        "meta-test update of the last layer, paper width",
        functools.partial(meta_test_update, PAPER, 300),
        functools.partial(meta_test_update, SMALL, 30),
        Targets(2.0, PEAK_MEMORY, COMPILE_SECONDS),
    ),
    Benchmark(
        "meta_test_update_losses",
        "the same, returning every loss",
        functools.partial(meta_test_update, PAPER, 300, losses=True),
        functools.partial(meta_test_update, SMALL, 30, losses=True),
        optional=True,
    ),
    _meta_step("anml_cpu_first_order", "ANML meta-step, preset cpu", CPU, None),
    _meta_step("anml_cpu_second_order", "the same, through the inner loop", CPU_SECOND, None),
    _meta_step("oml_cpu", "OML meta-step, preset cpu", CPU_OML, None),
    _meta_step("oml", "OML meta-step, paper width", PAPER_OML, None, optional=True),
)
