"""mini-ImageNet at 28x28: 64 training, 16 validation and 20 test classes of ImageNet.

The classes are those of Ravi & Larochelle (2017), 600 images of each; a copy with fewer will do, if
it has the same even number of every class. Every image is made RGB, then resized to a square by
Pillow's bilinear filter, as torchvision's Resize does by default, 0 to 255. Within a split the
classes are in the order of their names (WordNet numbers), the images of a class in that of the
split's csv file. ImageNet's terms do not allow for the images to be part of this package.
"""

from pathlib import Path

from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared, shape_problem
from tsar_jax.data.types import Dataset, ImageSet
from tsar_jax.errors import UserError

PREPARED = PreparedSet(
    name="mini_imagenet",
    title="mini-ImageNet",
    folder="mini_imagenet_28",
    version="1.0.0",
    command="python -m data_prep mini-imagenet --archives DIR",
)
CLASSES = {"train": 64, "val": 16, "test": 20}
SIDE = 28
ARCHIVE = "mini-imagenet.zip"

OBTAIN = (
    "there is no official download, so get train.csv, val.csv and test.csv of the Ravi & "
    "Larochelle split from github.com/twitter-research/meta-learning-lstm and the images that they "
    "name, under its terms, from image-net.org, put the three files and the folder images/ into a "
    f"folder DIR, or into DIR/{ARCHIVE},"
)


def load(folder: Path | None = None) -> Dataset:
    """mini-ImageNet from `<folder>/mini_imagenet_28`, where it was prepared.

    folder: by default where tensorflow-datasets keeps its data. The splits are "train", "val" and
    "test", uint8 [64 or 16 or 20, images_per_class, 28, 28, 3]. Raises UserError if nothing was
    prepared or if the data found are damaged.
    """
    out = default_folder() if folder is None else folder
    dataset = load_prepared(PREPARED, out, layout_problem)
    if dataset is None:
        raise UserError(
            f"mini-ImageNet is not prepared in {out}: {OBTAIN} and run "
            f"`{PREPARED.command} --out {out}`"
        )
    return dataset


def layout_problem(splits: dict[str, ImageSet]) -> str | None:
    """What is wrong with the splits' names, shapes or types, or None."""
    each = next(iter(splits.values())).images.shape[1]
    if each % 2:
        return f"its classes are of {each} images, not of an even number"
    shapes = {split: (classes, each, SIDE, SIDE, 3) for split, classes in CLASSES.items()}
    return shape_problem(splits, shapes)
