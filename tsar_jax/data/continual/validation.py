"""Selection of hyper-parameters without the test set: a part of the training images is held out."""

import dataclasses

import numpy as np

from tsar_jax.data.labelled import class_counts
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.errors import UserError

FRACTION, SEED = 0.1, 0


def hold_out(dataset: LabelledDataset) -> LabelledDataset:
    """Return a data set whose test images are a random tenth of its training images.

    The other training images are left to learn, in their order; the test images are not used. As in
    Mammoth (its option --validation) one permutation of all training images decides, whatever their
    class; here its seed is fixed, so that every run of every method holds out the same images.

    Args:
        dataset: the whole data set.

    Returns:
        The data set cut anew; its source says so.

    Raises:
        UserError: a class is left without an image to learn or to be tested on.
    """
    train = dataset.train
    order = np.random.RandomState(SEED).permutation(len(train.labels))
    count = int(FRACTION * len(order))
    held, left = _part(train, np.sort(order[:count])), _part(train, np.sort(order[count:]))
    for purpose, part in (("to be tested on", held), ("to learn", left)):
        counts = class_counts(part)
        if not counts.all():
            raise UserError(
                f"With {count} of {len(order)} training images of {dataset.name} held out, class "
                f"{train.names[int(np.argmin(counts))]!r} has none {purpose}: leave out "
                "validation, or take data with more images of a class."
            )
    source = f"{dataset.source}; tested on {count} of its training images, not on its test images"
    return dataclasses.replace(dataset, train=left, test=held, source=source)


def _part(images: LabelledImages, rows: np.ndarray) -> LabelledImages:
    return dataclasses.replace(images, images=images.images[rows], labels=images.labels[rows])
