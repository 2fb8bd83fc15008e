"""Streams of Omniglot's characters: one class after another, and ANML's episodes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.data import omniglot
from tsar_jax.data.episodes import (
    Episode,
    draw_episode,
    draw_without_replacement,
    scale_omniglot,
)
from tsar_jax.errors import UserError, check_limits
from tsar_jax.systems.compose.config import ComposeConfig, refuse_settings
from tsar_jax.systems.compose.streams.types import (
    SHAPE,
    STREAMS,
    ImageStream,
    check_classes,
    draw_lifetime,
)

EVAL_CHARACTERS = 50
"""Classes of a lifetime in evaluations on characters, unless the settings have another number."""
TRAIN_CLASSES = 963
"""Characters that episodes are drawn from, as published: the background's but the last."""


@STREAMS.register("characters")
def characters(config: ComposeConfig) -> ImageStream:
    """Return Omniglot's characters, one class after another, under labels drawn at random.

    Background classes are for meta-training, evaluation classes for evaluations.
    """
    refuse_settings(config, "stream characters", "remember", "repeat_first")
    eval_classes = config.eval_classes or min(EVAL_CHARACTERS, config.outputs)
    return ImageStream(
        SHAPE,
        config.outputs,
        eval_classes,
        lambda classes: classes * config.learn,
        load_characters,
        partial(draw_characters, config, learn=config.learn, query=config.query),
        partial(check_classes, eval_classes=eval_classes),
        unseen=True,
    )


def load_characters() -> tuple[dict[str, np.ndarray], str]:
    """Return Omniglot's characters as `ImageStream.load` does."""
    data = omniglot.load()
    train, test = (data.splits[split].images for split in ("background", "evaluation"))
    return {"train": train, "test": test}, data.source


def draw_characters(
    config: ComposeConfig,
    images: jax.Array,
    key: jax.Array,
    classes: int,
    *,
    learn: int,
    query: int,
) -> Episode:
    """Draw characters, each under a label of its own, drawn at random from the outputs."""
    rows_key, label_key = jax.random.split(key)
    labels = draw_without_replacement(label_key, config.outputs, classes)
    return draw_lifetime(
        images,
        rows_key,
        classes,
        lambda chosen: labels,
        learn=learn,
        query=query,
        pixels=config.pixels,
    )


@STREAMS.register("episodes")
def episodes(config: ComposeConfig) -> ImageStream:
    """Return ANML's episodes (arXiv 2002.09571, algorithm 1), and unseen characters to evaluate on.

    A lifetime learns some of the classes of meta-training, whose output rows are drawn anew before
    it, and is scored on what it learned and on random images of all classes. An evaluation learns
    unseen classes under random labels, and is scored on other images of them.
    """

    def draw(images: jax.Array, key: jax.Array, classes: int) -> Episode:
        episode = draw_episode(
            key,
            images[:TRAIN_CLASSES],
            tasks=classes,
            updates=classes * config.learn,
            random_query=config.remember,
        )
        trajectory = episode.trajectory
        if config.repeat_first:
            trajectory = jnp.concatenate([trajectory[:1], trajectory])
        inputs = scale_omniglot(episode.images, config.pixels)
        return episode._replace(images=inputs, trajectory=trajectory)

    def draw_test(images: jax.Array, key: jax.Array, classes: int) -> Episode:
        learn = min(config.learn, images.shape[1] - config.query)
        return draw_characters(config, images, key, classes, learn=learn, query=config.query)

    def check(config: ComposeConfig, data: dict[str, np.ndarray]) -> None:
        classes, per_class = data["train"].shape[:2]
        trained = min(classes, TRAIN_CLASSES)
        check_limits(
            ("classes", config.classes, trained, "classes in the data to train with"),
            ("learn", config.learn, per_class, "images of a class"),
            ("query", config.query, data["test"].shape[1] - 1, "images of a class but one"),
            ("eval_classes", eval_classes, data["test"].shape[0], "classes in the data to test"),
        )
        if trained > config.outputs:
            raise UserError(
                f"outputs is {config.outputs}, but episodes are scored on {trained} classes: raise "
                "it."
            )

    eval_classes = config.eval_classes or min(EVAL_CHARACTERS, config.outputs)
    return ImageStream(
        SHAPE,
        config.outputs,
        eval_classes,
        lambda classes: classes * config.learn + config.repeat_first,
        load_characters,
        draw,
        check,
        draw_test,
        forgets=True,
        unseen=True,
    )
