"""A network's representations measured on unseen classes: the numbers of one analysis."""

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
from tsar_jax.systems.episodic.meta_test_lifetime import LifetimeSpec, run_lifetimes

LEARN = 15
"""Images of a class that are learned, or that are neighbours; the others are tested on."""


class MetaTests(NamedTuple):
    """Meta-tests in which the output layer alone learns.

    spec: of each run.
    keys: one for each run.
    learning_rate: Adam's.
    memory_budget: bytes of runs side by side.
    """

    spec: LifetimeSpec
    keys: jax.Array
    learning_rate: float
    memory_budget: int


class Analysis(NamedTuple):
    """One network's numbers, and the arrays that its figure draws.

    measures: representation -> measure -> share, in [0, 1].
    meta_test: mean test accuracy, and share of classes above chance, in [0, 1].
    examples: representation -> units on the figure's images [images, F].
    means: representation -> mean activation [F].
    """

    measures: dict[str, dict[str, float]]
    meta_test: dict[str, float]
    examples: dict[str, np.ndarray]
    means: dict[str, np.ndarray]


def analyse(
    network: Network,
    pixels: Pixels,
    params: Any,
    images: np.ndarray,
    example_classes: np.ndarray,
    tests: MetaTests,
) -> Analysis:
    """Return every number for one network.

    Args:
        network: the network.
        pixels: the scale that it was trained with.
        params: its parameters.
        images: images of the unseen classes, uint8 [classes, per_class, H, W].
        example_classes: indices of the classes in the figure of gates [images].
        tests: the meta-tests.
    """
    active = jax.device_get(representation.activity(network, pixels, params, images))
    features = representation.features(network, pixels, params, images)
    known = [name for name in representation.REPRESENTATIONS if name in features]
    names = [*known, *(name for name in features if name not in known)]
    measures = {
        name: {
            SPARSITY: float(active[name].sparsity),
            DEAD_UNITS: float(active[name].dead_units),
            NEAREST_NEIGHBOUR: float(representation.held_out_accuracy(features[name], learn=LEARN)),
        }
        for name in names
    }
    spec, keys, learning_rate, memory_budget = tests
    result = run_head_lifetimes(
        network, spec, memory_budget, params, features["features"], keys, learning_rate
    )
    above_chance = representation.classes_above_chance(result["per_class"], spec.classes)
    return Analysis(
        measures,
        {
            "test_accuracy": float(result["test"].mean()),
            "classes_above_chance": float(above_chance),
        },
        {name: np.asarray(features[name][example_classes, 0]) for name in names},
        {name: active[name].mean for name in names},
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_head_lifetimes(
    network: Network,
    spec: LifetimeSpec,
    memory_budget: int,
    params: Any,
    features: jax.Array,
    keys: jax.Array,
    learning_rate: float,
) -> dict[str, jax.Array]:
    """Run lifetimes of a meta-test in which the output layer alone learns.

    Args:
        memory_budget: bytes of runs side by side.
        features: activations that enter the output layer [classes, per_class, F].
        keys: one for each run [n].
        learning_rate: Adam's.

    Returns:
        The arrays of `run_lifetime` [n, ...].
    """
    return run_lifetimes(
        network,
        params,
        mask(params, ("head",)),
        features.reshape(-1, features.shape[-1]),
        spec,
        features.shape[1],
        keys,
        jnp.full(keys.shape, learning_rate),
        memory_budget=memory_budget,
    )
