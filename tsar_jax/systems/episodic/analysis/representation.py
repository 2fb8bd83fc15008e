"""What a classifier's units respond to: sparsity, dead units, nearest neighbours.

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

THRESHOLD = 0.01  # a unit above it is active
NEIGHBOURS = 5

# The spaces of all networks, from input to output.
SPACES = ("gate", "features before gate", "representation", "features")

SPARSITY = "sparsity"
DEAD_UNITS = "dead_units"
NEAREST_NEIGHBOUR = "nearest_neighbour_accuracy"

PUBLISHED_CLASSES = 600  # unseen ones, of Omniglot


def published_measures(model: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return the published measures of a model's spaces.

    Args:
      model: as `AnmlConfig.model` names it.

    Returns:
      "trained" or "untrained" -> space -> measure -> share, in [0, 1].
    """
    found: dict[str, dict[str, dict[str, float]]] = {"trained": {}, "untrained": {}}
    for row in _of_spaces(model):
        state = "trained" if row.method == model else "untrained"
        space, _, measure = row.measure.replace("_before_", " before ").partition("/")
        if row.value is not None:
            found[state].setdefault(space, {})[measure] = float(row.value / 100)
    return found


def published_marks(model: str) -> str:
    """Return the kinds of source of `published_measures`, such as "T", empty if there is none."""
    return ", ".join(sorted({row.mark for row in _of_spaces(model)}))


def _of_spaces(model: str) -> list[Published]:
    rows = find_published(
        system="anml", method=(model, f"{model}_untrained"), size=PUBLISHED_CLASSES
    )
    return [row for row in rows if "/" in row.measure]


class Activity(NamedTuple):
    """What the units of one space did on a set of images.

    sparsity: share of units above the threshold, averaged over images. dead_units: share of
    units that no image drove above it. mean [F]: each unit's mean activation.
    """

    sparsity: jax.Array
    dead_units: jax.Array
    mean: jax.Array


def images_that_activate(activations: jax.Array, threshold: float = THRESHOLD) -> jax.Array:
    """How many images drive each unit above the threshold. activations [N, F] -> int32 [F]."""
    chex.assert_rank(activations, 2)
    return (activations > threshold).sum(0, dtype=jnp.int32)


def sparsity(activations: jax.Array, threshold: float = THRESHOLD) -> jax.Array:
    """Share of units above the threshold, averaged over images; small is sparse.

    activations [N, F] -> between 0 and 1.
    """
    return images_that_activate(activations, threshold).mean() / activations.shape[0]


def dead_units(activations: jax.Array, threshold: float = THRESHOLD) -> jax.Array:
    """Share of units that exceed the threshold on no image. activations [N, F]."""
    return (images_that_activate(activations, threshold) == 0).mean()


def spaces_of(
    network: Network, pixels: Pixels, params: Params, images: jax.Array
) -> dict[str, jax.Array]:
    """Return the network's named spaces, [N, F] each.

    images: uint8 [N, H, W]; pixels: the scale that the network was trained with.
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
    """`sparsity` and `dead_units` of each space, one class of images in memory at a time.

    images: uint8 [classes, per_class, H, W]; pixels: see `spaces_of`.
    """
    chex.assert_rank(images, 4)
    count = images.shape[0] * images.shape[1]

    def of_class(images: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        return {
            name: (images_that_activate(units, threshold), units.sum(0))
            for name, units in spaces_of(network, pixels, params, images).items()
        }

    def add(totals: Any, images: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, totals, of_class(images)), None

    shapes = jax.eval_shape(of_class, images[0])
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
    """Return each space for images uint8 [classes, per_class, H, W]: [classes, per_class, F].

    pixels: see `spaces_of`.
    """
    chex.assert_rank(images, 4)
    return lax.map(lambda of_class: spaces_of(network, pixels, params, of_class), images)


@functools.partial(jax.jit, static_argnames=("neighbours", "block"))
def nearest_neighbour_labels(
    learn_features: jax.Array,
    learn_labels: jax.Array,
    test_features: jax.Array,
    *,
    neighbours: int = NEIGHBOURS,
    block: int = 256,
) -> jax.Array:
    """The majority label among each query's nearest neighbours, by Euclidean distance.

    learn_features [L, F], learn_labels [L], test_features [T, F] -> [T]. Of labels with equally
    many votes the one with the nearest neighbour wins. Distances are taken as one matrix product
    for `block` queries at a time: |a - b|^2 = |a|^2 - 2 a.b + |b|^2, where |b|^2, the query's
    own, changes no order.
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
    """Share of queries whose majority label is theirs; see `nearest_neighbour_labels`."""
    labels = nearest_neighbour_labels(
        learn_features, learn_labels, test_features, neighbours=neighbours
    )
    return (labels == test_labels).mean()


def held_out_accuracy(
    space: jax.Array, *, learn: int = 15, neighbours: int = NEIGHBOURS
) -> jax.Array:
    """Nearest-neighbour accuracy where a class's first images vote on its others.

    space: [classes, per_class, F] as `features` gives it; images 0 .. learn-1 are neighbours.
    """
    chex.assert_rank(space, 3)
    classes, per_class, units = space.shape
    labels = jnp.arange(classes)
    return nearest_neighbour_accuracy(
        space[:, :learn].reshape(-1, units),
        jnp.repeat(labels, learn),
        space[:, learn:].reshape(-1, units),
        jnp.repeat(labels, per_class - learn),
        neighbours,
    )


def classes_above_chance(per_class_accuracy: jax.Array, classes: int) -> jax.Array:
    """Share of classes whose accuracy exceeds 1 / classes. per_class_accuracy [..., classes]."""
    chex.assert_axis_dimension(per_class_accuracy, -1, classes)
    return (per_class_accuracy > 1 / classes).mean()
