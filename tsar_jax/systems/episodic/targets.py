"""Domains that a network is transferred to: their classes, and how their images are scaled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.data import load, own
from tsar_jax.data.episodes import Pixels, omniglot_scaling, scale_omniglot
from tsar_jax.data.normalise import normalise_cifar100, normalise_imagenet
from tsar_jax.data.types import ImageSet
from tsar_jax.errors import check_known, doing_without
from tsar_jax.systems.episodic.image_regulation import Normalise

TARGETS: dict[str, tuple[str, ...]] = {
    "mini_imagenet": ("train", "test", "val"),
    "cifar100": ("train",),
    "omniglot": ("evaluation",),
}
"""Splits of a data set whose classes are learned."""


def check_domain(name: str) -> None:
    """Raise UserError for what is neither a domain nor the name of images of the user's own."""
    check_known("target", name, [*TARGETS, *own.own_names()])


def normaliser(target: str, pixels: Pixels) -> Normalise:
    """Return how images of a domain are normalised.

    pixels: the scale of Omniglot's that the network was meta-trained with.
    """
    if target == "omniglot":
        return omniglot_scaling(pixels)
    if target not in TARGETS:
        return own_scaling(pixels)
    return {"mini_imagenet": normalise_imagenet, "cifar100": normalise_cifar100}[target]


@functools.cache
def own_scaling(pixels: Pixels) -> Normalise:
    """Return how images of a user's own are normalised, the same function each time.

    Colour is taken for photographs, by ImageNet's statistics, and grey for drawings like those that
    the network was meta-trained with.
    """

    def normalise(images: jax.Array) -> jax.Array:
        colour = images.shape[-1] == 3
        return normalise_imagenet(images) if colour else scale_omniglot(images, pixels)

    return normalise


def load_target(name: str, pixels: Pixels) -> tuple[jax.Array, Normalise]:
    """Return images uint8 [classes, per_class, H, W (, 3)] of a domain, and their `normaliser`."""
    classes, normalise = load_classes(name, pixels)
    return jnp.asarray(classes.images), normalise


def load_classes(name: str, pixels: Pixels) -> tuple[ImageSet, Normalise]:
    """Return the classes of a domain with their names, on the host, and their `normaliser`."""
    with doing_without("--target omniglot needs no data to be prepared"):
        loaded = load(name).splits
    if name not in TARGETS:
        classes = own.all_of_each(name, loaded)
        return classes, normaliser(name, pixels)
    sets = [loaded[split] for split in TARGETS[name]]
    images = np.concatenate([s.images for s in sets])
    classes = ImageSet(images, tuple(name for s in sets for name in s.names))
    return classes, normaliser(name, pixels)
