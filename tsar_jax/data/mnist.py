"""MNIST (LeCun et al., 1998) at 28x28: the ten digits, 60,000 training and 10,000 test images.

Every image is as it was published, bright ink on black, 0 to 255. The digits differ in how many
images they have, but an `ImageSet` has the same number of each: a digit keeps its first ones, as
many as the rarest, which is 5, has in that split. They are not part of this package.
"""

from pathlib import Path

from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared, shape_problem
from tsar_jax.data.types import Dataset, ImageSet
from tsar_jax.errors import UserError

PREPARED = PreparedSet(
    name="mnist",
    title="MNIST",
    # Not plain "mnist": that folder is where tensorflow-datasets' own builder writes.
    folder="mnist28",
    version="1.0.0",
    command="python -m data_prep mnist",
)
NAMES = tuple("0123456789")
# The images of all digits together, and those of 5, the rarest in both splits.
IMAGES = {"train": 60_000, "test": 10_000}
IMAGES_PER_CLASS = {"train": 5421, "test": 892}
SIDE = 28


def load(folder: Path | None = None) -> Dataset:
    """MNIST from `<folder>/mnist28`, where it was prepared.

    folder: by default where tensorflow-datasets keeps its data. The splits are "train", uint8
    [10, 5421, 28, 28], and "test", uint8 [10, 892, 28, 28]; the classes are named "0" to "9".
    Raises UserError if nothing was prepared or if the data found are damaged.
    """
    out = default_folder() if folder is None else folder
    dataset = load_prepared(PREPARED, out, layout_problem)
    if dataset is None:
        raise UserError(
            f"MNIST is not prepared in {out}: run `{PREPARED.command} --out {out}`, which "
            "downloads train-images-idx3-ubyte.gz and the three other files of Yann LeCun's MNIST "
            "(12 MB) from their mirror https://storage.googleapis.com/cvdf-datasets/mnist/, or "
            "takes them from a folder that you name with --archives DIR"
        )
    return dataset


def layout_problem(splits: dict[str, ImageSet]) -> str | None:
    """What is wrong with the splits' names, shapes or types, or None."""
    shapes = {split: (len(NAMES), each, SIDE, SIDE) for split, each in IMAGES_PER_CLASS.items()}
    problem = shape_problem(splits, shapes)
    if problem is None and any(images.names != NAMES for images in splits.values()):
        problem = "its classes are not the digits 0 to 9"
    return problem
