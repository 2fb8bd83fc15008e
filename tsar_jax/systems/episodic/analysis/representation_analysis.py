"""A network's representation measured on unseen classes: the numbers of one analysis."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.data.episodes import Pixels
from tsar_jax.networks import Network
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.analysis import representation
from tsar_jax.systems.episodic.analysis.representation import (
    DEAD_UNITS,
    NEAREST_NEIGHBOUR,
    SPARSITY,
)
from tsar_jax.systems.episodic.meta_test import Protocol, run_many

LEARN = 15
"""Images of a class that are learned, or that are neighbours; the others test."""


class MetaTests(NamedTuple):
    """Meta-tests in which the output layer alone learns.

    protocol: of each run. keys: one per run. rate: Adam's learning rate. memory: bytes for runs
    that go at the same time.
    """

    protocol: Protocol
    keys: jax.Array
    rate: float
    memory: int


class Analysis(NamedTuple):
    """One network's numbers, and what its figure needs.

    measures: space -> measure -> share. meta_test: mean test accuracy and share of classes
    above chance. shown: space -> units [images, F]. means: space -> mean activation [F].
    """

    measures: dict[str, dict[str, float]]
    meta_test: dict[str, float]
    shown: dict[str, np.ndarray]
    means: dict[str, np.ndarray]


def analyse(
    network: Network,
    pixels: Pixels,
    params: Any,
    images: np.ndarray,
    shown: np.ndarray,
    tests: MetaTests,
) -> Analysis:
    """Return every number for one network.

    Args:
        network: the network.
        pixels: the scale that it was trained with.
        params: its parameters.
        images: those of the unseen classes, uint8 [classes, per_class, H, W].
        shown: indices of the classes in the figure of gates [images].
        tests: the meta-tests.
    """
    active = jax.device_get(representation.activity(network, pixels, params, images))
    features = representation.features(network, pixels, params, images)
    known = [name for name in representation.SPACES if name in features]
    names = [*known, *(name for name in features if name not in known)]
    measures = {
        name: {
            SPARSITY: float(active[name].sparsity),
            DEAD_UNITS: float(active[name].dead_units),
            NEAREST_NEIGHBOUR: float(representation.held_out_accuracy(features[name], learn=LEARN)),
        }
        for name in names
    }
    protocol, keys, rate, memory = tests
    result = meta_test(network, protocol, memory, params, features["features"], keys, rate)
    above_chance = representation.classes_above_chance(result["per_class"], protocol.classes)
    return Analysis(
        measures,
        {
            "test_accuracy": float(result["test"].mean()),
            "classes_above_chance": float(above_chance),
        },
        {name: np.asarray(features[name][shown, 0]) for name in names},
        {name: active[name].mean for name in names},
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def meta_test(
    network: Network,
    protocol: Protocol,
    memory: int,
    params: Any,
    features: jax.Array,
    keys: jax.Array,
    rate: float,
) -> dict[str, jax.Array]:
    """Meta-test on features [classes, per_class, F], the output layer alone learning."""
    plastic = mask(params, ("head",))
    signals = features.reshape(-1, features.shape[-1])
    rates = jnp.full(keys.shape, rate)
    per_class = features.shape[1]
    return run_many(
        network, params, plastic, signals, protocol, per_class, keys, rates, memory=memory
    )
