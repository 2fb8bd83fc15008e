"""Data sets by name."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tsar_jax.data import (
    cifar10,
    cifar100,
    emnist,
    mini_imagenet,
    mnist,
    omniglot,
    own,
    tiny_imagenet,
)
from tsar_jax.data.prepared import named_folder
from tsar_jax.data.types import Dataset, LabelledDataset
from tsar_jax.errors import UserError, nearest_hint, quoted
from tsar_jax.modules import import_installed
from tsar_jax.registry import Registry

Loaded = TypeVar("Loaded")

LOADERS: Registry[Callable[[Path | None], Dataset]] = Registry("data set")
"""Loaders of images by class; each takes the folder of prepared data sets, None: the default."""
for _name, _load_classes in (
    ("cifar100", cifar100.load),
    ("emnist", emnist.load),
    ("mini_imagenet", mini_imagenet.load),
    ("mnist", mnist.load),
    ("omniglot", omniglot.load),
):
    LOADERS.register(_name)(_load_classes)

LABELLED_LOADERS: Registry[Callable[[Path | None], LabelledDataset]] = Registry("data set")
"""Loaders of labelled images for training and for testing, as continual streams take them."""
for _name, _load_labelled in (
    ("cifar10", cifar10.load_labelled),
    ("cifar100", cifar100.load_labelled),
    ("emnist", emnist.load_labelled),
    ("emnist_digits", emnist.load_labelled_digits),
    ("mini_imagenet", mini_imagenet.load_labelled),
    ("mnist", mnist.load_labelled),
    ("omniglot", omniglot.load_labelled),
    ("tiny_imagenet", tiny_imagenet.load_labelled),
):
    LABELLED_LOADERS.register(_name)(_load_labelled)

# Short names of data sets in the names of streams.
ALIASES = {"tinyimg": "tiny_imagenet", "miniimg": "mini_imagenet"}
COMMANDS = {
    module.PREPARED.name: module.PREPARED.command
    for module in (cifar10, cifar100, emnist, mini_imagenet, mnist, omniglot, tiny_imagenet)
} | {"emnist_digits": emnist.PREPARED.command}


def load(name: str, folder: str | os.PathLike[str] | None = None) -> Dataset:
    """Return the data set `name`, from what `tsar-jax prepare` wrote or from the packaged default.

    Only Omniglot and part of EMNIST are packaged. A user's own images are known by the name that
    they were prepared under.

    Args:
        name: of the data set.
        folder: of prepared data sets; None: `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Raises:
        UserError: the name or the given folder is unknown, there are no data, or they are damaged.
    """
    return _load(LOADERS, own.load, name, folder)


def load_labelled(name: str, folder: str | os.PathLike[str] | None = None) -> LabelledDataset:
    """Return the data set `name`, complete and labelled, with images for training and for testing.

    "cifar10", "cifar100": 32x32, in colour, the official training and test images.
    "emnist", "emnist_digits": 28x28, all 47 classes or the ten digits.
    "mini_imagenet": 32x32, in colour, the 100 classes of all splits; every sixth image of a class
    is for testing.
    "mnist": 28x28, the official training and test images.
    "omniglot": 28x28, all 1623 classes; every fifth image of a class is for testing, as in the
    packaged EMNIST.
    "tiny_imagenet": 64x64, in colour, 200 classes; the official validation images are for testing.

    Arguments and errors are those of `load`.
    """
    return _load(LABELLED_LOADERS, own.load_labelled, name, folder)


def _load(
    loaders: Mapping[str, Callable[[Path | None], Loaded]],
    load_own: Callable[[str, Path | None], Loaded],
    name: str,
    folder: str | os.PathLike[str] | None,
) -> Loaded:
    if folder is not None:
        folder = named_folder(folder)
    if name not in loaders and name in own.own_names(folder):
        return load_own(name, folder)
    if name not in loaders:
        import_installed()
    if name not in loaders:
        known = [*sorted(loaders), *own.own_names(folder)]
        raise UserError(
            f"unknown data set {name!r}: choose one of {', '.join(known)}, or prepare images "
            f"of your own with `tsar-jax prepare images`{nearest_hint(name, known)}"
        )
    if folder is not None and not folder.is_dir() and name in COMMANDS:
        raise UserError(
            f"{folder} is not a folder of prepared data sets: make it with "
            f"`{COMMANDS[name]} --out {quoted(folder)}`, or name no folder"
        )
    return loaders[name](folder)
