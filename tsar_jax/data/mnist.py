"""MNIST (LeCun et al., 1998) at 28x28: the ten digits, 60,000 training and 10,000 test images.

Every image is as published, bright ink on black, 0 to 255. The digits differ in how many images
they have. `load_labelled` gives them all, in their published order. An `ImageSet` has the same
number of each: a digit keeps its first ones, as many as the rarest, which is 5, has in that split.
They are not part of this package.
"""

from pathlib import Path

from tsar_jax.data.labelled import class_counts, first_of_each, labelled_problem
from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared_labelled
from tsar_jax.data.types import Dataset, LabelledDataset, LabelledImages
from tsar_jax.errors import DataNotPrepared, quoted

PREPARED = PreparedSet(
    name="mnist",
    title="MNIST",
    # Not plain "mnist", which tensorflow-datasets' own builder writes to.
    folder="mnist28",
    version="2.0.0",
    command="tsar-jax prepare mnist",
)
NAMES = tuple("0123456789")
# Numbers of images of all digits together, and of 5, the rarest in both splits.
IMAGES = {"train": 60_000, "test": 10_000}
IMAGES_PER_CLASS = {"train": 5421, "test": 892}
SIDE = 28


def load(folder: Path | None = None) -> Dataset:
    """Return the same number of images of every digit, from `<folder>/mnist28`, where they were
    prepared.

    Args:
        folder: of data sets; None: where tensorflow-datasets keeps its data.

    Returns:
        Splits "train", uint8 [10, 5421, 28, 28], and "test", uint8 [10, 892, 28, 28]; the classes
        are named "0" to "9".

    Raises:
        UserError: nothing was prepared, or the data are damaged.
    """
    complete = load_labelled(folder)
    splits = {
        "train": first_of_each(complete.train, IMAGES_PER_CLASS["train"]),
        "test": first_of_each(complete.test, IMAGES_PER_CLASS["test"]),
    }
    return Dataset(complete.name, splits, complete.source)


def load_labelled(folder: Path | None = None) -> LabelledDataset:
    """Return all of MNIST: uint8 [60000, 28, 28] for training and [10000, 28, 28] for testing.

    Argument and errors are those of `load`.
    """
    out = default_folder() if folder is None else folder
    dataset = load_prepared_labelled(PREPARED, out, layout_problem)
    if dataset is None:
        raise DataNotPrepared(
            f"MNIST is not prepared in {out}: run `{PREPARED.command} --out {quoted(out)}`, which "
            "downloads train-images-idx3-ubyte.gz and the three other files of Yann LeCun's MNIST "
            "(12 MB) from their mirror https://storage.googleapis.com/cvdf-datasets/mnist/, or "
            "takes them from a folder that you name with --archives DIR"
        )
    return dataset


def layout_problem(splits: dict[str, LabelledImages]) -> str | None:
    """Return a description of wrong names, shapes, types or counts of the splits, or None."""
    problem = labelled_problem(splits, len(NAMES), (SIDE, SIDE))
    if problem:
        return problem
    for split, labelled in splits.items():
        if labelled.names != NAMES:
            return "its classes are not the digits 0 to 9"
        counts = class_counts(labelled)
        if len(labelled.labels) != IMAGES[split] or counts.min() != IMAGES_PER_CLASS[split]:
            return (
                f"its {split} images are {len(labelled.labels)}, {counts.min()} of the rarest "
                f"digit, not {IMAGES[split]} and {IMAGES_PER_CLASS[split]}"
            )
    return None
