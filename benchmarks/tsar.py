"""Meta-steps of TSAR, its update during a transfer, and a pass of its analyses."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import matmul_rates, stream_rates
from benchmarks.measure import Benchmark, Cost, Targets, Work
from benchmarks.meta_step import step_of
from tsar_jax.data import omniglot
from tsar_jax.data.episodes import omniglot_scaling
from tsar_jax.networks import init_params, params_like
from tsar_jax.networks.regulated import TSAR
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.analysis.regulation import add_gates, fold_gates, init_statistics
from tsar_jax.systems.episodic.meta_test_lifetime import frozen_activations, learn_stream
from tsar_jax.systems.episodic.tsar import (
    TRANSFERRED,
    TsarConfig,
    classifier_channels,
    make_network,
    make_system,
)
from tsar_jax.systems.episodic.tsar_presets import CPU

PAPER = TsarConfig()
NARROW = TsarConfig(channels=16, regulator_channels=24)
TINY = TsarConfig(channels=4, regulator_channels=4, inner_updates=4, remember=4)
FLOAT_BYTES = 4


def regulator_macs(config: TsarConfig) -> int:
    """Multiply-accumulates of the regulator's heads for one image: nearly all of a TSAR's."""
    return 9 * config.regulator_channels * synapses(config)


def synapses(config: TsarConfig) -> int:
    """Weights of the classifier, all regulated: 340,816 at full width."""
    width = classifier_channels(config)
    return 9 * width * (3 + 2 * width) + width * config.outputs


def parameters(config: TsarConfig) -> int:
    """All of a TSAR's parameters."""
    network = make_network(config)
    shapes = params_like(network)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _streaming(amount: float) -> Cost:
    return Cost(amount, "byte", stream_rates)


def _products(config: TsarConfig, amount: float) -> Cost:
    query = config.remember + config.inner_updates
    shape = (query, 9 * config.regulator_channels, 9 * classifier_channels(config) ** 2)
    return Cost(amount, "FLOP", functools.partial(matmul_rates, shapes=(shape,)))


def meta_step(config: TsarConfig) -> Work:
    """One first-order meta-step: 320 GFLOP and 16 GB at full width.

    2 * macs * (T + 3 Q): the regulator's heads once for T inner updates and, with their gradient,
    for Q query images. Adam reads weights, gradients and two moments and writes all but the
    gradients: 7 passes.
    """
    query = config.remember + config.inner_updates
    products = 2.0 * regulator_macs(config) * (config.inner_updates + 3 * query)
    costs = (
        _products(config, products),
        _streaming(7.0 * FLOAT_BYTES * parameters(config)),
    )
    return Work(*step_of(make_system(config), omniglot.load_on_device()), 1, costs)


def _network(config: TsarConfig) -> tuple[TSAR, Any]:
    network = make_network(config)
    assert isinstance(network, TSAR)
    return network, jax.jit(lambda key: init_params(network, key))(jax.random.key(0))


def transfer_update(config: TsarConfig, updates: int) -> Work:
    """An update of a transfer: all but the encoder learns, by Adam, one image at a time.

    Weights and moments are read and written: 6 passes. The gradient has rank one.
    """
    network, params = _network(config)
    plastic = mask(params, TRANSFERRED["tsar"])
    images = omniglot.load_on_device()["evaluation"][:updates, :1]
    activations = jax.jit(
        lambda p, x: frozen_activations(network, p, plastic, x, pixels=config.pixels)
    )(params, images)
    labels = jnp.asarray(np.arange(updates, dtype=np.int32) // 30)

    def function(params: Any, _: jax.Array, activations: Any, labels: jax.Array) -> tuple[Any, Any]:
        learned, _ = learn_stream(network, params, plastic, activations, labels, learning_rate=1e-3)
        return learned, None

    traffic = 6.0 * FLOAT_BYTES * parameters(config)
    return Work(function, params, (activations, labels), updates, (_streaming(traffic),))


def analysis_pass(config: TsarConfig, images: int) -> Work:
    """An image of an analysis: its gates, and what is collected of the third convolution's."""
    network, params = _network(config)
    shown = omniglot.load_on_device()["evaluation"].reshape(-1, 28, 28)[:images]
    labels = jnp.asarray(np.arange(images, dtype=np.int32) // 30)
    start = init_statistics(images // 30 + 1, 9 * classifier_channels(config) ** 2)
    normalise = omniglot_scaling(config.pixels)

    def fold(state: Any, gates: dict[str, jax.Array], label: jax.Array) -> Any:
        return add_gates(state, gates["block_2"].reshape(-1), label)

    def function(
        state: Any, _: jax.Array, params: Any, shown: jax.Array, labels: jax.Array
    ) -> tuple[Any, Any]:
        return fold_gates(network, params, shown, labels, normalise, fold, state), None

    cost = _products(config, 2.0 * regulator_macs(config))
    return Work(function, start, (params, shown, labels), images, (cost,))


BENCHMARKS = (
    Benchmark(
        "tsar",
        "TSAR meta-step, paper width: 590 M parameters",
        functools.partial(meta_step, PAPER),
        functools.partial(meta_step, TINY),
        Targets(ratio=1.6, peak_memory_bytes=11e9),
    ),
    Benchmark(
        "tsar_cpu",
        "TSAR meta-step, preset cpu: 22 M parameters",
        functools.partial(meta_step, CPU),
        functools.partial(meta_step, TINY),
    ),
    Benchmark(
        "tsar_narrow",
        "TSAR meta-step, 16 and 24 channels: 4.6 M parameters",
        functools.partial(meta_step, NARROW),
        functools.partial(meta_step, TINY),
    ),
    Benchmark(
        "tsar_second_order",
        "TSAR meta-step, preset cpu, through the inner loop",
        functools.partial(meta_step, dataclasses.replace(CPU, order="second")),
        functools.partial(meta_step, dataclasses.replace(TINY, order="second")),
        optional=True,
    ),
    Benchmark(
        "tsar_transfer_update",
        "an image of a transfer, preset cpu",
        functools.partial(transfer_update, CPU, 60),
        functools.partial(transfer_update, TINY, 6),
    ),
    Benchmark(
        "tsar_analysis",
        "an image of an analysis, preset cpu",
        functools.partial(analysis_pass, CPU, 300),
        functools.partial(analysis_pass, TINY, 6),
    ),
)
