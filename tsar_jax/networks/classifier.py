"""Interface of networks in continual learning: a few pure functions of their variables."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Tree = Any


class Variables(NamedTuple):
    """Variables of a classifier.

    params: learned parameters. stats: running statistics of batch norm; {} in a network without.
    """

    params: Tree
    stats: Tree


class Classifier(NamedTuple):
    """A network that classifies images; every function is pure.

    init: (key) -> Variables
    train: (Variables, images [N, H, W, C], mask [N] or None) -> (logits [N, classes], stats).
        In training: batch norm takes its statistics from images of the batch whose mask is 1, and
        updates the running ones, unless there are none.
    logits: (Variables, images) -> logits [N, classes], by the running statistics.
    features: (Variables, images) -> [N, F], inputs of the last layer in `logits`.
    fisher: (Variables, images, labels [N]) -> (importance, stats). For each parameter, the mean
        over the images of p(y|x) (d log p(y|x) / d theta)^2, every image a batch of its own, one
        after another; and the running statistics after them. A label of -1 is no class, so that its
        p is 0: the image counts in the number of images, but adds nothing.
    """

    init: Callable[[jax.Array], Variables]
    train: Callable[..., tuple[jax.Array, Tree]]
    logits: Callable[[Variables, jax.Array], jax.Array]
    features: Callable[[Variables, jax.Array], jax.Array]
    fisher: Callable[[Variables, jax.Array, jax.Array], tuple[Tree, Tree]]
