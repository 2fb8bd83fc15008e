"""Data sets by name."""

import os
from collections.abc import Callable
from pathlib import Path

from tsar_jax.data import cifar100, emnist, mini_imagenet, mnist, omniglot
from tsar_jax.data.types import Dataset
from tsar_jax.errors import UserError

LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "cifar100": cifar100.load,
    "emnist": emnist.load,
    "mini_imagenet": mini_imagenet.load,
    "mnist": mnist.load,
    "omniglot": omniglot.load,
}
COMMANDS = {
    module.PREPARED.name: module.PREPARED.command
    for module in (cifar100, emnist, mini_imagenet, mnist, omniglot)
}


def load(name: str, folder: str | os.PathLike[str] | None = None) -> Dataset:
    """The data set `name`, from what `python -m data_prep` wrote or from the packaged default.

    folder: where prepared data sets lie; by default `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
    Only Omniglot and part of EMNIST are packaged. Raises UserError if the name or a folder that was
    named is unknown, if there are no data, or if they are damaged.
    """
    if name not in LOADERS:
        known = ", ".join(sorted(LOADERS))
        raise UserError(f"unknown data set {name!r}: choose one of {known}")
    if folder is not None:
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise UserError(
                f"{folder} is not a folder of prepared data sets: make it with "
                f"`{COMMANDS[name]} --out {folder}`, or name no folder"
            )
    return LOADERS[name](folder)
