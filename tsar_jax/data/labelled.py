"""Labelled data sets: grouped by class, made of groups, and described."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tsar_jax.data.types import Dataset, ImageSet, LabelledDataset, LabelledImages
from tsar_jax.errors import UserError

# Where classes have no test images, the last of every so many images of a class is for testing.
TEST_EVERY = 5


def first_of_each(labelled: LabelledImages, per_class: int) -> ImageSet:
    """Return the first images of every class, in their order: uint8 [classes, per_class, ...].

    Raises:
        ValueError: a class has fewer.
    """
    counts = class_counts(labelled)
    if counts.min() < per_class:
        raise ValueError(f"a class has {counts.min()} images, not {per_class}")
    first = np.cumsum(counts) - counts
    order = np.argsort(labelled.labels, kind="stable")[first[:, None] + np.arange(per_class)]
    return ImageSet(labelled.images[order], labelled.names)


def class_counts(labelled: LabelledImages) -> np.ndarray:
    """Return the number of images of every class, [classes]."""
    return np.bincount(labelled.labels, minlength=len(labelled.names))


def pool(sets: Sequence[ImageSet]) -> LabelledImages:
    """Return all classes of all sets, class after class; the labels count on from set to set."""
    per_class = np.concatenate([np.full(len(s.names), s.images.shape[1]) for s in sets])
    images = [s.images.reshape(-1, *s.images.shape[2:]) for s in sets]
    return LabelledImages(
        np.concatenate(images) if len(images) > 1 else images[0],
        np.repeat(np.arange(len(per_class), dtype=np.int32), per_class),
        tuple(name for s in sets for name in s.names),
    )


def train_and_test(dataset: Dataset, every: int = TEST_EVERY) -> LabelledDataset:
    """Return a data set's images for training and for testing, class after class.

    Splits "train" and "test" of the same classes are used unchanged. Otherwise the classes of
    all splits are pooled, in the order of the splits, and each is cut: the images every - 1,
    2 every - 1, ... of a class are for testing and the others for training, which the source then
    says.

    Raises:
        UserError: a class has fewer than `every` images.
    """
    splits = dataset.splits
    if set(splits) == {"train", "test"} and splits["train"].names == splits["test"].names:
        train, test = pool([splits["train"]]), pool([splits["test"]])
        return LabelledDataset(dataset.name, train, test, dataset.source)
    for split, images in splits.items():
        if images.images.shape[1] < every:
            raise UserError(
                f"{dataset.name} ({dataset.source}) has {images.images.shape[1]} images of every "
                f"class in split {split!r}, too few for one of {every} to be for testing: prepare "
                f"{every} or more of each"
            )
    train, test = (
        pool([_cut(images, every, testing) for images in splits.values()])
        for testing in (False, True)
    )
    source = f"{dataset.source}; one of {every} images of a class is for testing"
    return LabelledDataset(dataset.name, train, test, source)


def _cut(images: ImageSet, every: int, testing: bool) -> ImageSet:
    for_testing = np.arange(images.images.shape[1]) % every == every - 1
    return ImageSet(images.images[:, for_testing == testing], images.names)


def note_subset(dataset: LabelledDataset, train: int, test: int) -> LabelledDataset:
    """Return the data set, with a note in its source if it has fewer images than officially.

    train, test: official numbers of images.
    """
    counts = len(dataset.train.labels), len(dataset.test.labels)
    if counts == (train, test):
        return dataset
    note = f"a subset: {counts[0]} of {train} training and {counts[1]} of {test} test images"
    return dataclasses.replace(dataset, source=f"{note}, {dataset.source}")


def labelled_problem(
    splits: dict[str, LabelledImages], classes: int, shape: tuple[int, ...]
) -> str | None:
    """Return a description of wrong splits for training and testing, or None.

    They should be "train" and "test", of the same number of classes and at least one uint8 image
    [*shape] of each.
    """
    if set(splits) != {"train", "test"}:
        return f"its splits are {sorted(splits)}"
    for split, labelled in splits.items():
        image_shape = labelled.images.shape[1:]
        if image_shape != shape or labelled.images.dtype != np.uint8:
            return (
                f"its {split} images are {labelled.images.dtype} {list(image_shape)}, "
                f"not {list(shape)}"
            )
        if len(labelled.names) != classes:
            return f"its {split} images are of {len(labelled.names)} classes, not {classes}"
        counts = class_counts(labelled)
        if not counts.all():
            name = labelled.names[int(np.argmin(counts))]
            return f"class {name!r} has no {split} images"
    return None
