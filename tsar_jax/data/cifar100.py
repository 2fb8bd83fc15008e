"""CIFAR-100 (Krizhevsky, 2009): 100 classes of 500 training and 100 test images, in colour.

They are prepared in two sizes, RGB, 0 to 255: as they were published, at 32x32, and resized to
28x28 by Pillow's bilinear filter, as torchvision's Resize does by default. Both splits have the
same classes, the fine ones, in the order of their official labels; within a class the images are in
the order of the archive. They are not part of this package.
"""

import functools
from pathlib import Path

from tsar_jax.data.labelled import train_and_test
from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared, shape_problem
from tsar_jax.data.types import Dataset, ImageSet, LabelledDataset
from tsar_jax.errors import DataNotPrepared, quoted

PREPARED = PreparedSet(
    name="cifar100",
    title="CIFAR-100",
    # Not plain "cifar100", which tensorflow-datasets' own builder (32x32) writes to.
    folder="cifar100_28",
    version="1.0.0",
    command="tsar-jax prepare cifar100",
)
PREPARED_AT_32 = PREPARED._replace(folder="cifar100_32")
CLASSES = 100
IMAGES_PER_CLASS = {"train": 500, "test": 100}
SIDE = 28
LABELLED_SIDE = 32


def load(folder: Path | None = None) -> Dataset:
    """Return CIFAR-100 at 28x28 from `<folder>/cifar100_28`, where it was prepared.

    Args:
        folder: of data sets; None: where tensorflow-datasets keeps its data.

    Returns:
        Splits "train", uint8 [100, 500, 28, 28, 3], and "test", uint8 [100, 100, 28, 28, 3], of the
        same classes.

    Raises:
        UserError: nothing was prepared, or the data are damaged.
    """
    return _load(PREPARED, SIDE, folder)


def load_labelled(folder: Path | None = None) -> LabelledDataset:
    """Return CIFAR-100 at 32x32 from `<folder>/cifar100_32`, class after class.

    Images are uint8 [50000, 32, 32, 3] for training and [10000, 32, 32, 3] for testing. Argument
    and errors are those of `load`.
    """
    return train_and_test(_load(PREPARED_AT_32, LABELLED_SIDE, folder))


def _load(about: PreparedSet, side: int, folder: Path | None) -> Dataset:
    out = default_folder() if folder is None else folder
    dataset = load_prepared(about, out, functools.partial(layout_problem, side=side))
    if dataset is None:
        raise DataNotPrepared(
            f"CIFAR-100 at {side}x{side} is not prepared in {out}: run "
            f"`{about.command} --out {quoted(out)}`, which downloads "
            "cifar-100-python.tar.gz (169 MB) from Alex Krizhevsky's page, "
            "https://www.cs.toronto.edu/~kriz/cifar.html, or takes it from "
            "a folder that you name with --archives DIR"
        )
    return dataset


def layout_problem(splits: dict[str, ImageSet], side: int = SIDE) -> str | None:
    """Return a description of wrong names, shapes or types of the splits, or None."""
    shapes = {split: (CLASSES, count, side, side, 3) for split, count in IMAGES_PER_CLASS.items()}
    problem = shape_problem(splits, shapes)
    if problem is None and splits["train"].names != splits["test"].names:
        problem = "its splits are not of the same classes"
    return problem
