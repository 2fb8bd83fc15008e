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
from tsar_jax.data.episodes import (
    Episode,
    Pixels,
    draw_episode,
    draw_images,
    draw_without_replacement,
    scale_omniglot,
)
from tsar_jax.data.rule_episodes import draw_rule_episode
from tsar_jax.environments.registry import find_environments
from tsar_jax.environments.types import Environment, Variants
from tsar_jax.errors import UserError, check_limits
from tsar_jax.registry import Registry
from tsar_jax.systems.compose.config import ComposeConfig

SHAPE = (28, 28)
EVAL_CHARACTERS = 50
"""Classes of a lifetime in evaluations on characters, unless the settings have another number."""
TRAIN_CLASSES = 963
"""Characters that episodes are drawn from, as published: the background's but the last."""
HELD_OUT_IMAGES = 5
"""Images of a class that score evaluations of episodes, of the 20 that it has."""
HELD_OUT = 10
"""Classes of EMNIST, the last ones, that handwriting keeps for evaluations."""


Draw = Callable[[jax.Array, jax.Array, int], Episode]


class ImageStream(NamedTuple):
    """A stream of labelled images.

    shape: height and width of an image. outputs: number of labels.
    eval_classes: classes of a lifetime in evaluations.
    length: (classes of a lifetime) -> number of examples that it learns.
    load: () -> images for meta-training ("train") and for evaluations ("test"), uint8
        [classes, per_class, H, W], and where they are from.
    draw: (images, key, classes of a lifetime) -> a lifetime's `Episode`, with inputs
        [N, H, W, 1] for images.
    check: (config, data) -> None; raises UserError where the data cannot serve the config.
    draw_test: as draw, in evaluations; None: draw itself.
    forgets: whether the output rows of an episode's `reset_classes` are drawn anew before it.
    """

    shape: tuple[int, int]
    outputs: int
    eval_classes: int
    length: Callable[[int], int]
    load: Callable[[], tuple[dict[str, np.ndarray], str]]
    draw: Draw
    check: Callable[[ComposeConfig, dict[str, np.ndarray]], None]
    draw_test: Draw | None = None
    forgets: bool = False


Stream = ImageStream | Environment

STREAMS: Registry[Callable[[ComposeConfig], Stream]] = Registry("stream")
"""Every stream by the name that a config gives it."""


def draw_rows(
    key: jax.Array, images: jax.Array, classes: int, count: int
) -> tuple[jax.Array, jax.Array]:
    """Draw different classes [classes], and different images of each [classes, count]."""
    class_key, image_key = jax.random.split(key)
    chosen = draw_without_replacement(class_key, images.shape[0], classes)
    return chosen, draw_images(image_key, classes, images.shape[1], count)


def draw_lifetime(
    images: jax.Array,
    key: jax.Array,
    classes: int,
    label: Callable[[jax.Array], jax.Array],
    *,
    learn: int,
    query: int,
    pixels: Pixels = "unit",
) -> Episode:
    """Draw classes, and images of each to learn and others to score, class after class.

    Args:
        images: that they are drawn from, uint8 [classes, per_class, H, W].
        key: of the draw.
        classes: number of them.
        label: (numbers of the chosen classes in the data [classes]) -> their labels [classes].
        learn, query: images of each class.
        pixels: scale of the inputs.

    Returns:
        The episode, whose classes to be forgotten are all of its labels.
    """
    chosen, rows = draw_rows(key, images, classes, learn + query)
    labels = label(chosen)
    drawn = images[chosen[:, None], rows].reshape(-1, *images.shape[2:])
    place = jnp.arange(classes * (learn + query)).reshape(classes, learn + query)
    return Episode(
        scale_omniglot(drawn, pixels),
        jnp.repeat(labels, learn + query),
        place[:, :learn].reshape(-1),
        labels,
        place[:, learn:].reshape(-1),
    )


def shuffled(key: jax.Array, episode: Episode) -> Episode:
    """Return the episode with its examples in random order."""
    return episode._replace(trajectory=jax.random.permutation(key, episode.trajectory))


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

    eval_classes = config.eval_classes or min(EVAL_CHARACTERS, config.outputs)
    return ImageStream(
        SHAPE,
        config.outputs,
        eval_classes,
        lambda classes: classes * config.learn,
        load_characters,
        partial(draw_characters, config, learn=config.learn, query=config.query),
        partial(check_classes, eval_classes=eval_classes),
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
        query = min(HELD_OUT_IMAGES, images.shape[1] - 1)
        learn = min(config.learn, images.shape[1] - query)
        return draw_characters(config, images, key, classes, learn=learn, query=query)

    def check(config: ComposeConfig, data: dict[str, np.ndarray]) -> None:
        classes, per_class = data["train"].shape[:2]
        trained = min(classes, TRAIN_CLASSES)
        check_limits(
            ("classes", config.classes, trained, "classes in the data to train with"),
            ("learn", config.learn, per_class, "images of a class"),
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


def _compiled(name: str, config: ComposeConfig) -> Environment:
    """Return one of this project's compiled environments; the settings may shorten episodes."""
    found = find_environments(name, (), "auto", "RK4", config.episode_steps)
    assert isinstance(found, Variants)
    return found.one(0)


STREAMS.register("cart_pole")(partial(_compiled, "cart_pole"))
STREAMS.register("pendulum")(partial(_compiled, "pendulum"))


def find_stream(config: ComposeConfig) -> Stream:
    """Return the stream that a config names. Raises UserError where there is none."""
    return STREAMS.find(config.stream)(config)
