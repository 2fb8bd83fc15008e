"""Types of data sets in memory."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images grouped by class, the same number in each.

    images: uint8 [classes, images_per_class, height, width], grey, or [..., 3], colour.
    names: one per class, in the order of the first axis.
    """

    images: np.ndarray
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set: its splits, and its origin."""

    name: str
    splits: dict[str, ImageSet]
    source: str


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images in any order, classes of any size.

    images: uint8 [images, height, width], grey, or [..., 3], colour.
    labels: int32 [images], 0 to classes - 1.
    names: one per class, in the order of the labels.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LabelledDataset:
    """A named data set to learn and to be tested on: the same classes, each of them in both.

    source: its origin; whether it is a subset of what its name promises; how it was cut into
    `train` and `test`, if it has no such splits.
    """

    name: str
    train: LabelledImages
    test: LabelledImages
    source: str
