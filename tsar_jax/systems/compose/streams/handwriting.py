"""Streams of EMNIST: a few classes in mixed order, and digits of permuted pixels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.data import emnist
from tsar_jax.data.episodes import Episode
from tsar_jax.data.rule_episodes import draw_rule_episode
from tsar_jax.errors import check_limits
from tsar_jax.systems.compose.config import ComposeConfig, refuse_settings
from tsar_jax.systems.compose.streams.types import (
    SHAPE,
    STREAMS,
    ImageStream,
    check_classes,
    draw_lifetime,
    shuffled,
)

OF_CHARACTERS = ("pixels", "remember", "repeat_first")
"""Settings that streams of characters alone take."""
HELD_OUT = 10
"""Classes of EMNIST, the last ones, that handwriting keeps for evaluations."""


@STREAMS.register("handwriting")
def handwriting(config: ComposeConfig) -> ImageStream:
    """Return a few classes of EMNIST, image by image in mixed order, under labels 0 to classes - 1.

    The last `HELD_OUT` classes are for evaluations.
    """
    refuse_settings(config, "stream handwriting", *OF_CHARACTERS)

    def load() -> tuple[dict[str, np.ndarray], str]:
        data = emnist.load()
        images = data.splits["train"].images
        return {"train": images[:-HELD_OUT], "test": images[-HELD_OUT:]}, data.source

    def draw(images: jax.Array, key: jax.Array, classes: int) -> Episode:
        rows_key, order_key = jax.random.split(key)
        labels = jnp.arange(classes)
        drawn = draw_lifetime(
            images,
            rows_key,
            classes,
            lambda chosen: labels,
            learn=config.learn,
            query=config.query,
        )
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


@STREAMS.register("emnist")
def emnist_episodes(config: ComposeConfig) -> ImageStream:
    """Return EMNIST as published for learned rules (arXiv 2210.16414), image by image.

    Classes are drawn with replacement, a class's images are its first ones, and each class has an
    output of its own. Meta-training and evaluations have the same classes and images.
    """
    refuse_settings(config, "stream emnist", *OF_CHARACTERS)

    def load() -> tuple[dict[str, np.ndarray], str]:
        data = emnist.load()
        # As published the test split; the packaged part has one split.
        images = data.splits["test" if len(data.splits) > 1 else "train"].images
        return {"train": images, "test": images}, data.source

    def draw(images: jax.Array, key: jax.Array, classes: int) -> Episode:
        drawn = draw_rule_episode(
            key,
            images,
            classes=classes,
            learn=config.learn,
            query=config.query,
            fixed_images=True,
            replacement=True,
        )
        inputs, labels = jax.tree.map(
            lambda *parts: jnp.concatenate(parts), drawn.examples, drawn.query
        )
        learned = classes * config.learn
        return Episode(
            inputs.reshape(-1, *images.shape[2:], 1),
            labels,
            jnp.arange(learned),
            jnp.unique(labels, size=classes),
            jnp.arange(learned, labels.size),
        )

    eval_classes = config.eval_classes or config.classes
    return ImageStream(
        SHAPE,
        len(emnist.NAMES),
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
    refuse_settings(config, "stream permuted", *OF_CHARACTERS)

    def load() -> tuple[dict[str, np.ndarray], str]:
        data = emnist.load()
        images = data.splits["train"].images[: emnist.DIGITS]
        half = images.shape[1] // 2
        return {"train": images[:, :half], "test": images[:, half:]}, data.source

    def draw_task(images: jax.Array, key: jax.Array) -> Episode:
        rows_key, order_key, pixel_key = jax.random.split(key, 3)
        drawn = draw_lifetime(
            images,
            rows_key,
            emnist.DIGITS,
            lambda chosen: chosen,
            learn=config.learn,
            query=config.query,
        )
        pixels = jax.random.permutation(pixel_key, images.shape[2] * images.shape[3])
        flat = drawn.images.reshape(drawn.images.shape[0], -1)[:, pixels]
        return shuffled(order_key, drawn._replace(images=flat.reshape(drawn.images.shape)))

    def draw(images: jax.Array, key: jax.Array, classes: int) -> Episode:
        del classes  # always all ten
        tasks = jax.vmap(partial(draw_task, images))(jax.random.split(key, config.tasks))
        count = tasks.labels.shape[1]
        first = count * jnp.arange(config.tasks)[:, None]
        assert tasks.query is not None
        tasks = tasks._replace(trajectory=tasks.trajectory + first, query=tasks.query + first)
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
