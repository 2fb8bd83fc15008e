"""Measures of a classifier's representations: sparsity, dead units, nearest neighbours.

The measures of Beaulieu et al. (2020), arXiv 2002.09571, on 600 unseen classes of Omniglot.
"""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.data.episodes import Pixels, scale_omniglot
from tsar_jax.evaluation.published_results import Published, find_published
from tsar_jax.networks import Network

Params = Any

THRESHOLD = 0.01
"""Activation above which a unit counts as active."""
NEIGHBOURS = 5
"""Nearest neighbours that vote on a label."""

REPRESENTATIONS = ("gate", "features before gate", "representation", "features")
"""Names of all networks' representations, from input to output."""

SPARSITY = "sparsity"
DEAD_UNITS = "dead_units"
NEAREST_NEIGHBOUR = "nearest_neighbour_accuracy"

PUBLISHED_CLASSES = 600
"""Unseen classes of Omniglot that the published measures are on."""


def published_measures(model: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return the published measures of a model's representations.

    Args:
        model: as `AnmlConfig.model` names it.

    Returns:
        "trained" or "untrained" -> representation -> measure -> share, in [0, 1].
    """
    measures: dict[str, dict[str, dict[str, float]]] = {"trained": {}, "untrained": {}}
    for row in _published_rows(model):
        state = "trained" if row.method == model else "untrained"
        name, _, measure = row.measure.replace("_before_", " before ").partition("/")
        if row.value is not None:
            measures[state].setdefault(name, {})[measure] = float(row.value / 100)
    return measures


def published_marks(model: str) -> str:
    """Return the kinds of source of `published_measures`, such as "T", empty if there is none."""
    return ", ".join(sorted({row.mark for row in _published_rows(model)}))


def _published_rows(model: str) -> list[Published]:
    """Return the rows of published results that are measures of a representation."""
    rows = find_published(
        system="anml", method=(model, f"{model}_untrained"), size=PUBLISHED_CLASSES
    )
    return [row for row in rows if "/" in row.measure]


class Activity(NamedTuple):
    """Activity of one representation's F units on a set of images.

    sparsity: share of units above the threshold, averaged over images, in [0, 1].
    dead_units: share of units that no image drives above it, in [0, 1].
    mean: each unit's mean activation [F].
    """

    sparsity: jax.Array
    dead_units: jax.Array
    mean: jax.Array


def images_that_activate(activations: jax.Array, threshold: float = THRESHOLD) -> jax.Array:
    """Return how many images drive each unit above the threshold, int32 [F].

    Args:
        activations: [N, F].
    """
    chex.assert_rank(activations, 2)
    return (activations > threshold).sum(0, dtype=jnp.int32)


def sparsity(activations: jax.Array, threshold: float = THRESHOLD) -> jax.Array:
    """Return the share of units above the threshold, averaged over images; small is sparse.

    Args:
        activations: [N, F].
    """
    return images_that_activate(activations, threshold).mean() / activations.shape[0]


def dead_units(activations: jax.Array, threshold: float = THRESHOLD) -> jax.Array:
    """Return the share of units that exceed the threshold on no image.

    Args:
        activations: [N, F].
    """
    return (images_that_activate(activations, threshold) == 0).mean()


def named_representations(
    network: Network, pixels: Pixels, params: Params, images: jax.Array
) -> dict[str, jax.Array]:
    """Return the network's representations by name, [N, F] each.

    Args:
        pixels: the scale that the network was trained with.
        images: uint8 [N, H, W].
    """
    images = scale_omniglot(images, pixels)
    named: Any = network.apply({"params": params}, images, method="representations")
    return named


@functools.partial(jax.jit, static_argnums=(0, 1))
def activity(
    network: Network,
    pixels: Pixels,
    params: Params,
    images: jax.Array,
    threshold: float = THRESHOLD,
) -> dict[str, Activity]:
    """Return the activity of each representation, with one class of images in memory at a time.

    Args:
        pixels: the scale that the network was trained with.
        images: uint8 [classes, per_class, H, W].
    """
    chex.assert_rank(images, 4)
    count = images.shape[0] * images.shape[1]

    def class_totals(images: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        return {
            name: (images_that_activate(units, threshold), units.sum(0))
            for name, units in named_representations(network, pixels, params, images).items()
        }

    def add(totals: Any, images: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, totals, class_totals(images)), None

    shapes = jax.eval_shape(class_totals, images[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    totals, _ = lax.scan(add, zeros, images)
    return {
        name: Activity(active.mean() / count, (active == 0).mean(), total / count)
        for name, (active, total) in totals.items()
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def features(
    network: Network, pixels: Pixels, params: Params, images: jax.Array
) -> dict[str, jax.Array]:
    """Return each representation [classes, per_class, F] by name.

    Args:
        pixels: the scale that the network was trained with.
        images: uint8 [classes, per_class, H, W].
    """
    chex.assert_rank(images, 4)
    return lax.map(
        lambda class_images: named_representations(network, pixels, params, class_images), images
    )


@functools.partial(jax.jit, static_argnames=("neighbours", "block"))
def nearest_neighbour_labels(
    learn_features: jax.Array,
    learn_labels: jax.Array,
    test_features: jax.Array,
    *,
    neighbours: int = NEIGHBOURS,
    block: int = 256,
) -> jax.Array:
    """Return the majority label among each query's nearest neighbours, by Euclidean distance.

    Among labels with equally many votes, that with the nearest neighbour wins. Distances are one
    matrix product for `block` queries at a time: |a - b|^2 = |a|^2 - 2 a.b + |b|^2, where |b|^2,
    the query's own, changes no order.

    Args:
        learn_features: [L, F].
        learn_labels: [L].
        test_features: the queries [T, F].
        neighbours: neighbours that vote.
        block: queries at a time, which bounds the memory of the products [block, L].

    Returns:
        Labels [T].
    """
    chex.assert_rank([learn_features, learn_labels, test_features], [2, 1, 2])
    chex.assert_equal_shape_prefix([learn_features, learn_labels], 1)
    # Distances are the same about the mean, and subtracting large squares loses fewer digits.
    mean = learn_features.mean(0)
    learned = learn_features - mean
    squares = jnp.square(learned).sum(1)

    def label(query: jax.Array) -> jax.Array:
        products = jnp.dot(learned, query - mean, precision=lax.Precision.HIGHEST)
        _, nearest = lax.top_k(2 * products - squares, neighbours)
        labels = learn_labels[nearest]
        votes = (labels[:, None] == labels).sum(1)
        return labels[votes.argmax()]  # the first of equals, and the nearest come first

    return lax.map(label, test_features, batch_size=block)


def nearest_neighbour_accuracy(
    learn_features: jax.Array,
    learn_labels: jax.Array,
    test_features: jax.Array,
    test_labels: jax.Array,
    neighbours: int = NEIGHBOURS,
) -> jax.Array:
    """Return the share of queries that `nearest_neighbour_labels` labels rightly."""
    labels = nearest_neighbour_labels(
        learn_features, learn_labels, test_features, neighbours=neighbours
    )
    return (labels == test_labels).mean()


def held_out_accuracy(
    representation: jax.Array, *, learn: int = 15, neighbours: int = NEIGHBOURS
) -> jax.Array:
    """Return the nearest-neighbour accuracy where a class's first images vote on its others.

    Args:
        representation: [classes, per_class, F], as `features` gives it.
        learn: images of a class that are neighbours, the first ones.
        neighbours: neighbours that vote.
    """
    chex.assert_rank(representation, 3)
    classes, per_class, units = representation.shape
    labels = jnp.arange(classes)
    return nearest_neighbour_accuracy(
        representation[:, :learn].reshape(-1, units),
        jnp.repeat(labels, learn),
        representation[:, learn:].reshape(-1, units),
        jnp.repeat(labels, per_class - learn),
        neighbours,
    )


def classes_above_chance(per_class_accuracy: jax.Array, classes: int) -> jax.Array:
    """Return the share of classes whose accuracy exceeds 1 / classes.

    Args:
        per_class_accuracy: [..., classes].
    """
    chex.assert_axis_dimension(per_class_accuracy, -1, classes)
    return (per_class_accuracy > 1 / classes).mean()
