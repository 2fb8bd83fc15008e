"""Tiny labelled data for continual learning."""

import numpy as np

from tsar_jax.data.types import LabelledDataset, LabelledImages


def labelled(count, classes, shape, seed):
    """Images whose brightest part tells their class, classes in mixed order."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % classes).astype(np.int32)
    images = random.integers(0, 100, (count, *shape)).astype(np.uint8)
    flat = images.reshape(count, -1)
    for row, label in enumerate(labels):
        flat[row, label :: 2 * classes] += 150
    return LabelledImages(images, labels, tuple(str(label) for label in range(classes)))


def toy_dataset(train=60, test=20, classes=4, shape=(6, 6), name="toy"):
    return LabelledDataset(
        name, labelled(train, classes, shape, 0), labelled(test, classes, shape, 1), "made up"
    )
