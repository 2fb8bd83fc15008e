"""What a prepared data set looks like in memory."""

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
    """A named data set: its splits, and where they were read from."""

    name: str
    splits: dict[str, ImageSet]
    source: str
