"""A user's own images, prepared under a name of the user's by `tsar-jax prepare images`.

They have two splits of the same classes, "train" and "test", uint8 [images, side, side] where all
are grey and [..., 3] otherwise; the classes are in the order of their names, of any size. Every
folder `<folder>/images_<name>` is such a data set, and is known by its name like the others.
"""

import re
from pathlib import Path

import numpy as np

from tsar_jax.data.labelled import class_counts, first_of_each, labelled_problem
from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared_labelled
from tsar_jax.data.types import Dataset, ImageSet, LabelledDataset, LabelledImages
from tsar_jax.errors import UserError

PREFIX = "images_"
VERSION = "1.0.0"
SIDES = (28, 32, 64)
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)


def about(name: str) -> PreparedSet:
    """Return the description of the data set prepared under a name."""
    command = f"tsar-jax prepare images --archives DIR --name {name}"
    return PreparedSet(name, f"images called {name}", PREFIX + name, VERSION, command)


def own_names(folder: Path | None = None) -> list[str]:
    """Return the names under which images are prepared in a folder, by default that of all data
    sets.
    """
    out = default_folder() if folder is None else folder
    try:
        folders = sorted(path.parent.name for path in out.glob(f"{PREFIX}*/{VERSION}"))
    except OSError:
        return []
    return [name.removeprefix(PREFIX) for name in folders]


def load_labelled(name: str, folder: Path | None = None) -> LabelledDataset:
    """Return all images called `name`.

    Args:
        name: under which they were prepared.
        folder: of data sets; None: where tensorflow-datasets keeps its data.

    Raises:
        UserError: there are none, or they are damaged.
    """
    out = default_folder() if folder is None else folder
    dataset = load_prepared_labelled(about(name), out, layout_problem)
    if dataset is None:
        raise UserError(f"{name!r} is not prepared in {out}: run `{about(name).command}`")
    return dataset


def load(name: str, folder: Path | None = None) -> Dataset:
    """Return the images called `name` by class: of each the first, as many as the smallest has.

    The splits are "train" and "test", uint8 [classes, images_per_class, side, side (, 3)], of the
    same classes. Arguments and errors are those of `load_labelled`.
    """
    dataset = load_labelled(name, folder)
    splits = {
        split: first_of_each(images, int(class_counts(images).min()))
        for split, images in (("train", dataset.train), ("test", dataset.test))
    }
    return Dataset(name, splits, dataset.source)


def all_of_each(name: str, splits: dict[str, ImageSet]) -> ImageSet:
    """Return both splits of `load` as one, uint8 [classes, images_per_class, 28, 28 (, 3)].

    Raises:
        UserError: the images have another size, which networks for 28x28 do not take.
    """
    images = np.concatenate([splits["train"].images, splits["test"].images], axis=1)
    side = images.shape[2]
    if side != SIDES[0]:
        raise UserError(
            f"{name} has images of {side}x{side}, but {SIDES[0]}x{SIDES[0]} are wanted: prepare "
            f"them with --size {SIDES[0]} under another name"
        )
    return ImageSet(images, splits["train"].names)


def layout_problem(splits: dict[str, LabelledImages]) -> str | None:
    """Return a description of wrong names, shapes, types or labels of the splits, or None."""
    first = next(iter(splits.values()))
    side = first.images.shape[1]
    shape = (side, side, 3) if first.images.ndim == 4 else (side, side)
    return labelled_problem(splits, len(first.names), shape)
