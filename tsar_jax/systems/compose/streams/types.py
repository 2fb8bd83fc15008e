"""What a stream of a composition is, their registry, and lifetimes drawn of images."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.data.episodes import (
    Episode,
    Pixels,
    draw_images,
    draw_without_replacement,
    scale_omniglot,
)
from tsar_jax.environments.types import Environment
from tsar_jax.errors import check_limits
from tsar_jax.registry import Registry
from tsar_jax.systems.compose.config import ComposeConfig

SHAPE = (28, 28)


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
    unseen: whether evaluations may have any number of classes, up to outputs, none of which
        meta-training has.
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
    unseen: bool = False

    def drawing(self, *, test: bool) -> Draw:
        """Return how lifetimes are drawn: in evaluations (test), or in meta-training."""
        return self.draw_test if test and self.draw_test is not None else self.draw


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
