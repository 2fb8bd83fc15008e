"""CIFAR-100 (Krizhevsky, 2009) at 28x28: 100 classes of 500 training and 100 test images.

Every image is the official 32x32 one resized by Pillow's bilinear filter, as torchvision's Resize
does by default, RGB, 0 to 255. Both splits have the same classes, the fine ones, in the order of
their official labels; within a class the images are in the order of the archive. They are not part
of this package.
"""

from pathlib import Path

from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared, shape_problem
from tsar_jax.data.types import Dataset, ImageSet
from tsar_jax.errors import UserError

PREPARED = PreparedSet(
    name="cifar100",
    title="CIFAR-100",
    # Not plain "cifar100": that folder is where tensorflow-datasets' own builder (32x32) writes.
    folder="cifar100_28",
    version="1.0.0",
    command="python -m data_prep cifar100",
)
CLASSES = 100
IMAGES_PER_CLASS = {"train": 500, "test": 100}
SIDE = 28


def load(folder: Path | None = None) -> Dataset:
    """CIFAR-100 from `<folder>/cifar100_28`, where it was prepared.

    folder: by default where tensorflow-datasets keeps its data. The splits are "train", uint8
    [100, 500, 28, 28, 3], and "test", uint8 [100, 100, 28, 28, 3], of the same classes. Raises
    UserError if nothing was prepared or if the data found are damaged.
    """
    out = default_folder() if folder is None else folder
    dataset = load_prepared(PREPARED, out, layout_problem)
    if dataset is None:
        raise UserError(
            f"CIFAR-100 is not prepared in {out}: run `{PREPARED.command} --out {out}`, which "
            "downloads cifar-100-python.tar.gz (169 MB) from Alex Krizhevsky's page, "
            "https://www.cs.toronto.edu/~kriz/cifar.html, or takes it from a folder that you name "
            "with --archives DIR"
        )
    return dataset


def layout_problem(splits: dict[str, ImageSet]) -> str | None:
    """What is wrong with the splits' names, shapes or types, or None."""
    shapes = {split: (CLASSES, each, SIDE, SIDE, 3) for split, each in IMAGES_PER_CLASS.items()}
    problem = shape_problem(splits, shapes)
    if problem is None and splits["train"].names != splits["test"].names:
        problem = "its splits are not of the same classes"
    return problem
