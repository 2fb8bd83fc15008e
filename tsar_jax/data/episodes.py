"""Episodes of meta-training and streams of meta-testing, gathered on the device.

They are pure functions of a key: nothing is shuffled or stored between them, so step n draws the
same episode whether or not the run was interrupted before it.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

# The releases normalise by statistics of a 256-fold scale (the deviation by its square), TSAR's
# values 0..255 and ANML's, by oversight, values 0..1; the published results were trained so.
OMNIGLOT_MEAN = 0.92206 * 256
OMNIGLOT_STD = 0.08426 * 256 * 256

ClassOrder = Literal["random", "data"]
"""Order in which the classes of a stream are learned: random, or as in the data set."""

Pixels = Literal["byte-normalised", "unit-normalised", "unit"]
"""Network input of a pixel v in 0..255: (v - 236.05) / 5522.06 (the TSAR release);
(v / 255 - 236.05) / 5522.06 (the ANML release); or v / 255.
"""


class Episode(NamedTuple):
    """Data of one lifetime of meta-training.

    images [N, H, W] and labels [N]: each image once, however often it is used.
    trajectory [T]: rows of those, learned one after another.
    reset_classes [tasks]: the trajectory's classes, to be forgotten before it begins.
    query [Q]: rows that the lifetime is scored on; None: all.
    """

    images: jax.Array
    labels: jax.Array
    trajectory: jax.Array
    reset_classes: jax.Array
    query: jax.Array | None = None


class Stream(NamedTuple):
    """Data of one meta-test run; labels count classes in order of appearance.

    learn_index, test_index [n, 2]: rows of (class, image) into the data set.
    learn_labels, test_labels [n]: their labels.
    """

    learn_index: jax.Array
    learn_labels: jax.Array
    test_index: jax.Array
    test_labels: jax.Array


def scale_omniglot(images: jax.Array, pixels: Pixels) -> jax.Array:
    """Return images uint8 [..., H, W] as a network's input, float32 [..., H, W, 1].

    pixels: scaling of the values 0..255, see `Pixels`.
    """
    values = images.astype(jnp.float32)[..., None]
    if pixels != "byte-normalised":
        values = values / 255
    return values if pixels == "unit" else (values - OMNIGLOT_MEAN) / OMNIGLOT_STD


@functools.cache
def omniglot_scaling(pixels: Pixels) -> Callable[[jax.Array], jax.Array]:
    """Return `scale_omniglot` of a scale, the same function each time (a static argument)."""
    return functools.partial(scale_omniglot, pixels=pixels)


def draw_without_replacement(key: jax.Array, population: int, count: int) -> jax.Array:
    """Return `count` different integers below `population`, uniformly, in random order."""
    return lax.top_k(jax.random.bits(key, (population,)), count)[1]


def draw_images(key: jax.Array, classes: int, per_class: int, count: int) -> jax.Array:
    """Return `count` different ones of each class's `per_class` images, int [classes, count]."""
    keys = jax.random.split(key, classes)
    return jax.vmap(lambda k: draw_without_replacement(k, per_class, count))(keys)


def draw_episode(
    key: jax.Array, images: jax.Array, *, tasks: int, updates: int, random_query: int
) -> Episode:
    """Draw an episode: classes learned one after another, and its query set.

    The query set is `random_query` images of all classes, drawn independently, and the
    trajectory's images (Beaulieu et al. 2020, algorithm 1).

    Args:
        key: of the draw.
        images: uint8 [classes, images_per_class, H, W].
        tasks: number of classes of the trajectory.
        updates: length of the trajectory; updates / tasks images of each class.
        random_query: number of the query set's random images.
    """
    chex.assert_rank(images, 4)
    classes, per_class = images.shape[:2]
    images_per_task = updates // tasks
    class_key, image_key, random_query_key = jax.random.split(key, 3)
    chosen = draw_without_replacement(class_key, classes, tasks)
    instances = draw_images(image_key, tasks, per_class, images_per_task)
    learned_rows = jnp.repeat(chosen, images_per_task) * per_class + instances.reshape(-1)
    random_rows = jax.random.randint(random_query_key, (random_query,), 0, classes * per_class)
    rows = jnp.concatenate([learned_rows, random_rows])
    flat = images.reshape(classes * per_class, *images.shape[2:])
    return Episode(flat[rows], rows // per_class, jnp.arange(tasks * images_per_task), chosen)


def draw_stream(
    key: jax.Array,
    *,
    population: int,
    classes: int,
    learn: int,
    per_class: int,
    class_order: ClassOrder,
    iid: bool,
    epochs: int,
) -> Stream:
    """Draw a meta-test run over `classes` of the first `population` classes, in `class_order`.

    Images 0 .. learn-1 of a class are learned, class after class or, with `iid`, shuffled, in
    `epochs` passes; the others are held out.
    """
    class_key, order_key = jax.random.split(key)
    chosen = draw_without_replacement(class_key, population, classes)
    if class_order == "data":
        chosen = jnp.sort(chosen)

    def rows(first: int, last: int) -> tuple[jax.Array, jax.Array]:
        count = last - first
        image = jnp.tile(jnp.arange(first, last), classes)
        index = jnp.stack([jnp.repeat(chosen, count), image], 1)
        return index, jnp.repeat(jnp.arange(classes), count)

    learn_index, learn_labels = rows(0, learn)
    order = jnp.tile(jnp.arange(learn_labels.size), (epochs, 1))
    if iid:
        order = jax.random.permutation(order_key, order, axis=1, independent=True)
    order = order.reshape(-1)
    return Stream(learn_index[order], learn_labels[order], *rows(learn, per_class))
