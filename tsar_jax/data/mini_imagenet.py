"""mini-ImageNet: 64 training, 16 validation and 20 test classes of ImageNet, in colour.

The classes are those of Ravi & Larochelle (2017), 600 images of each; a copy with fewer also works,
if it has the same even number of every class. They are prepared in two sizes, 28x28 and 32x32:
every image is made RGB, then resized to a square by Pillow's bilinear filter, as torchvision's
Resize does by default, 0 to 255. Within a split the classes are in the order of their names
(WordNet numbers), the images of a class in that of the split's csv file. ImageNet's terms do not
allow for the images to be part of this package.
"""

import functools
from pathlib import Path

from tsar_jax.data.labelled import note_subset, train_and_test
from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared, shape_problem
from tsar_jax.data.types import Dataset, ImageSet, LabelledDataset
from tsar_jax.errors import DataNotPrepared, quoted

PREPARED = PreparedSet(
    name="mini_imagenet",
    title="mini-ImageNet",
    folder="mini_imagenet_28",
    version="1.0.0",
    command="tsar-jax prepare mini-imagenet --archives DIR",
)
PREPARED_AT_32 = PREPARED._replace(folder="mini_imagenet_32")
CLASSES = {"train": 64, "val": 16, "test": 20}
SIDE = 28
LABELLED_SIDE = 32
# Numbers of images of the full set after its classes are pooled and cut.
LABELLED_TEST_EVERY = 6
LABELLED_IMAGES = {"train": 50_000, "test": 10_000}
ARCHIVE = "mini-imagenet.zip"

OBTAIN = (
    "there is no official download, so get train.csv, val.csv and test.csv of the Ravi & "
    "Larochelle split from github.com/twitter-research/meta-learning-lstm and the images that they "
    "name, under its terms, from image-net.org, put the three files and the folder images/ into a "
    f"folder DIR, or into DIR/{ARCHIVE},"
)


def load(folder: Path | None = None) -> Dataset:
    """Return mini-ImageNet at 28x28 from `<folder>/mini_imagenet_28`, where it was prepared.

    Args:
        folder: of data sets; None: where tensorflow-datasets keeps its data.

    Returns:
        Splits "train", "val" and "test", uint8 [64 or 16 or 20, images_per_class, 28, 28, 3].

    Raises:
        UserError: nothing was prepared, or the data are damaged.
    """
    return _load(PREPARED, SIDE, folder)


def load_labelled(folder: Path | None = None) -> LabelledDataset:
    """Return the 100 classes of all splits at 32x32 from `<folder>/mini_imagenet_32`.

    Images are class after class; numbers 5, 11, 17, ... of a class are for testing and the others
    for
    training: of the full set uint8 [50000, 32, 32, 3] for training and [10000, 32, 32, 3] for
    testing; of fewer the source says how many there are. Argument and errors are those of `load`.

    Raises:
        UserError: a class has fewer than 6 images.
    """
    dataset = train_and_test(_load(PREPARED_AT_32, LABELLED_SIDE, folder), LABELLED_TEST_EVERY)
    return note_subset(dataset, LABELLED_IMAGES["train"], LABELLED_IMAGES["test"])


def _load(about: PreparedSet, side: int, folder: Path | None) -> Dataset:
    out = default_folder() if folder is None else folder
    dataset = load_prepared(about, out, functools.partial(layout_problem, side=side))
    if dataset is None:
        raise DataNotPrepared(
            f"mini-ImageNet at {side}x{side} is not prepared in {out}: {OBTAIN} and run "
            f"`{about.command} --out {quoted(out)}`"
        )
    return dataset


def layout_problem(splits: dict[str, ImageSet], side: int = SIDE) -> str | None:
    """Return a description of wrong names, shapes or types of the splits, or None."""
    per_class = next(iter(splits.values())).images.shape[1]
    if per_class % 2:
        return f"its classes are of {per_class} images, not of an even number"
    shapes = {split: (classes, per_class, side, side, 3) for split, classes in CLASSES.items()}
    return shape_problem(splits, shapes)
