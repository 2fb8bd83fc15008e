"""Domains that a network is transferred to: their classes, and how their images are normalised."""

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
"""Splits whose classes are learned, by data set."""


def check_domain(target: str) -> None:
    """Raise UserError where the target is neither a domain nor the name of a user's own images."""
    check_known("target", target, [*TARGETS, *own.own_names()])


def normaliser(target: str, pixels: Pixels) -> Normalise:
    """Return the function that normalises the images of a domain.

    Args:
        pixels: the scale of Omniglot that the network was meta-trained with.
    """
    if target == "omniglot":
        return omniglot_scaling(pixels)
    if target not in TARGETS:
        return own_scaling(pixels)
    return {"mini_imagenet": normalise_imagenet, "cifar100": normalise_cifar100}[target]


@functools.cache
def own_scaling(pixels: Pixels) -> Normalise:
    """Return the function that normalises a user's own images, the same one each time.

    Images in colour are taken for photographs, with ImageNet's statistics, and grey ones for
    drawings like those that the network was meta-trained with.
    """

    def normalise(images: jax.Array) -> jax.Array:
        colour = images.shape[-1] == 3
        return normalise_imagenet(images) if colour else scale_omniglot(images, pixels)

    return normalise


def load_target(target: str, pixels: Pixels) -> tuple[jax.Array, Normalise]:
    """Return images uint8 [classes, per_class, H, W (, 3)] of a domain, and their `normaliser`."""
    classes, normalise = load_classes(target, pixels)
    return jnp.asarray(classes.images), normalise


def load_classes(target: str, pixels: Pixels) -> tuple[ImageSet, Normalise]:
    """Return the classes of a domain with their names, on the host, and their `normaliser`.

    Raises:
        NotThere: the domain's data have not been prepared.
    """
    with doing_without("target omniglot needs no data to be prepared"):
        splits = load(target).splits
    if target not in TARGETS:
        classes = own.all_of_each(target, splits)
        return classes, normaliser(target, pixels)
    sets = [splits[split] for split in TARGETS[target]]
    images = np.concatenate([s.images for s in sets])
    classes = ImageSet(images, tuple(name for s in sets for name in s.names))
    return classes, normaliser(target, pixels)
