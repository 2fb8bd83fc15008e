"""Streams of a composition: what a lifetime learns, and how it is scored.

A stream of images is a function of a key over images on the device; one of an environment is the
environment. One more is a function, registered by a module of yours:

    @STREAMS.register("mine")
    def mine(config: ComposeConfig) -> ImageStream | Environment: ...
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.data import emnist, omniglot
from tsar_jax.data.episodes import draw_images, draw_without_replacement
from tsar_jax.environments.registry import find_environments
from tsar_jax.environments.types import Environment, Variants
from tsar_jax.errors import check_limits
from tsar_jax.registry import Registry
from tsar_jax.systems.compose.config import ComposeConfig

Examples = tuple[jax.Array, jax.Array]
"""Images float [n, H, W, 1] of 0..1, and their labels int [n]."""

SHAPE = (28, 28)
EVAL_CHARACTERS = 50
"""Classes of a lifetime in evaluations on characters, unless the settings have another number."""
HELD_OUT = 10
"""Classes of EMNIST, the last ones, that handwriting keeps for evaluations."""


class Lifetime(NamedTuple):
    """What one lifetime learns, in order, and the query set that scores it."""

    examples: Examples
    query: Examples


class ImageStream(NamedTuple):
    """A stream of labelled images.

    shape: height and width of an image. outputs: number of labels.
    eval_classes: classes of a lifetime in evaluations.
    length: (classes of a lifetime) -> number of examples that it learns.
    load: () -> images for meta-training ("train") and for evaluations ("test"), uint8
        [classes, per_class, H, W], and where they are from.
    draw: (images, key, classes of a lifetime) -> lifetime.
    check: (config, data) -> None; raises UserError where the data cannot serve the config.
    """

    shape: tuple[int, int]
    outputs: int
    eval_classes: int
    length: Callable[[int], int]
    load: Callable[[], tuple[dict[str, np.ndarray], str]]
    draw: Callable[[jax.Array, jax.Array, int], Lifetime]
    check: Callable[[ComposeConfig, dict[str, np.ndarray]], None]


Stream = ImageStream | Environment

STREAMS: Registry[Callable[[ComposeConfig], Stream]] = Registry("stream")
"""Every stream by the name that a config gives it."""


def as_inputs(images: jax.Array) -> jax.Array:
    """Return images uint8 [n, H, W] as inputs, float32 [n, H, W, 1] of 0..1."""
    return images.astype(jnp.float32)[..., None] / 255


def draw_rows(
    key: jax.Array, images: jax.Array, classes: int, count: int
) -> tuple[jax.Array, jax.Array]:
    """Draw different classes [classes], and different images of each [classes, count]."""
    class_key, image_key = jax.random.split(key)
    chosen = draw_without_replacement(class_key, images.shape[0], classes)
    return chosen, draw_images(image_key, classes, images.shape[1], count)


def gather(images: jax.Array, chosen: jax.Array, rows: jax.Array, labels: jax.Array) -> Examples:
    """Return rows [classes, n] of each chosen class as examples, class after class.

    labels: of the chosen classes, [classes].
    """
    pixels = images[chosen[:, None], rows].reshape(-1, *images.shape[2:])
    return as_inputs(pixels), jnp.repeat(labels, rows.shape[1])


def draw_lifetime(
    config: ComposeConfig,
    images: jax.Array,
    key: jax.Array,
    classes: int,
    label: Callable[[jax.Array], jax.Array],
) -> Lifetime:
    """Draw classes, and images of each to learn and to score, class after class.

    label: (numbers of the chosen classes in the data [classes]) -> their labels [classes].
    """
    chosen, rows = draw_rows(key, images, classes, config.learn + config.query)
    labels = label(chosen)
    return Lifetime(
        gather(images, chosen, rows[:, : config.learn], labels),
        gather(images, chosen, rows[:, config.learn :], labels),
    )


def shuffled(key: jax.Array, lifetime: Lifetime) -> Lifetime:
    """Return the lifetime with its examples in random order."""
    inputs, labels = lifetime.examples
    order = jax.random.permutation(key, labels.shape[0])
    return lifetime._replace(examples=(inputs[order], labels[order]))


def check_classes(config: ComposeConfig, data: dict[str, np.ndarray], *, eval_classes: int) -> None:
    """Raise UserError where there are fewer classes, or images of one, than a lifetime has."""
    for split, name, wanted in (
        ("train", "classes", config.classes),
        ("test", "eval_classes", eval_classes),
    ):
        classes, per_class = data[split].shape[:2]
        check_limits(
            (name, wanted, classes, f"classes in the data to {split} with"),
            ("learn + query", config.learn + config.query, per_class, "images of a class"),
        )


@STREAMS.register("characters")
def characters(config: ComposeConfig) -> ImageStream:
    """Return Omniglot's characters, one class after another, under labels drawn at random.

    Background classes are for meta-training, evaluation classes for evaluations.
    """

    def load() -> tuple[dict[str, np.ndarray], str]:
        data = omniglot.load()
        train, test = (data.splits[split].images for split in ("background", "evaluation"))
        return {"train": train, "test": test}, data.source

    def draw(images: jax.Array, key: jax.Array, classes: int) -> Lifetime:
        rows_key, label_key = jax.random.split(key)
        labels = draw_without_replacement(label_key, config.outputs, classes)
        return draw_lifetime(config, images, rows_key, classes, lambda chosen: labels)

    eval_classes = config.eval_classes or min(EVAL_CHARACTERS, config.outputs)
    return ImageStream(
        SHAPE,
        config.outputs,
        eval_classes,
        lambda classes: classes * config.learn,
        load,
        draw,
        partial(check_classes, eval_classes=eval_classes),
    )


@STREAMS.register("handwriting")
def handwriting(config: ComposeConfig) -> ImageStream:
    """Return a few classes of EMNIST, image by image in mixed order, under labels 0 to classes - 1.

    The last `HELD_OUT` classes are for evaluations.
    """

    def load() -> tuple[dict[str, np.ndarray], str]:
        data = emnist.load()
        images = data.splits["train"].images
        return {"train": images[:-HELD_OUT], "test": images[-HELD_OUT:]}, data.source

    def draw(images: jax.Array, key: jax.Array, classes: int) -> Lifetime:
        rows_key, order_key = jax.random.split(key)
        labels = jnp.arange(classes)
        drawn = draw_lifetime(config, images, rows_key, classes, lambda chosen: labels)
        return shuffled(order_key, drawn)

    eval_classes = config.eval_classes or min(config.classes, HELD_OUT)
    return ImageStream(
        SHAPE,
        max(config.classes, eval_classes),
        eval_classes,
        lambda classes: classes * config.learn,
        load,
        draw,
        partial(check_classes, eval_classes=eval_classes),
    )


@STREAMS.register("permuted")
def permuted(config: ComposeConfig) -> ImageStream:
    """Return tasks one after another: ten digits whose pixels are permuted, otherwise in each task.

    The query set has images of all tasks. Meta-training and evaluations have different images.
    """

    def load() -> tuple[dict[str, np.ndarray], str]:
        data = emnist.load()
        images = data.splits["train"].images[: emnist.DIGITS]
        half = images.shape[1] // 2
        return {"train": images[:, :half], "test": images[:, half:]}, data.source

    def draw_task(images: jax.Array, key: jax.Array) -> Lifetime:
        rows_key, order_key, pixel_key = jax.random.split(key, 3)
        drawn = draw_lifetime(config, images, rows_key, emnist.DIGITS, lambda chosen: chosen)
        pixels = jax.random.permutation(pixel_key, images.shape[2] * images.shape[3])

        def permute(examples: Examples) -> Examples:
            inputs, labels = examples
            flat = inputs.reshape(inputs.shape[0], -1)[:, pixels]
            return flat.reshape(inputs.shape), labels

        return shuffled(order_key, Lifetime(permute(drawn.examples), permute(drawn.query)))

    def draw(images: jax.Array, key: jax.Array, classes: int) -> Lifetime:
        del classes  # always all ten
        tasks = jax.vmap(partial(draw_task, images))(jax.random.split(key, config.tasks))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tasks)

    def check(config: ComposeConfig, data: dict[str, np.ndarray]) -> None:
        per_class = data["train"].shape[1]
        check_limits(("learn + query", config.learn + config.query, per_class, "images of a digit"))

    return ImageStream(
        SHAPE,
        emnist.DIGITS,
        emnist.DIGITS,
        lambda classes: config.tasks * emnist.DIGITS * config.learn,
        load,
        draw,
        check,
    )


def _compiled(name: str, config: ComposeConfig) -> Environment:
    """Return one of this project's compiled environments; the settings may shorten episodes."""
    found = find_environments(name, (), "auto", "RK4", config.episode_steps)
    assert isinstance(found, Variants)
    return found.one(0)


STREAMS.register("cart_pole")(partial(_compiled, "cart_pole"))
STREAMS.register("pendulum")(partial(_compiled, "pendulum"))
