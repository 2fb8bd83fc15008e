"""CIFAR-10 (Krizhevsky, 2009) at 32x32: 10 classes of 5000 training and 1000 test images.

Every image is as published, RGB, 0 to 255, in the order of the archive; the classes are in the
order of their official labels. The images are not part of this package. A copy with fewer images
also works, if it has some of every class.
"""

from pathlib import Path

from tsar_jax.data.labelled import labelled_problem, note_subset
from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared_labelled
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.errors import DataNotPrepared, quoted

PREPARED = PreparedSet(
    name="cifar10",
    title="CIFAR-10",
    # Not plain "cifar10", which tensorflow-datasets' own builder writes to.
    folder="cifar10_32",
    version="1.0.0",
    command="tsar-jax prepare cifar10",
)
CLASSES = 10
IMAGES = {"train": 50_000, "test": 10_000}
SIDE = 32


def load_labelled(folder: Path | None = None) -> LabelledDataset:
    """Return CIFAR-10 from `<folder>/cifar10_32`, where it was prepared.

    Args:
        folder: of data sets; None: where tensorflow-datasets keeps its data.

    Returns:
        Images uint8 [50000, 32, 32, 3] for training and [10000, 32, 32, 3] for testing; of fewer
        the source says how many there are.

    Raises:
        UserError: nothing was prepared, or the data are damaged.
    """
    out = default_folder() if folder is None else folder
    dataset = load_prepared_labelled(PREPARED, out, layout_problem)
    if dataset is None:
        raise DataNotPrepared(
            f"CIFAR-10 is not prepared in {out}: run "
            f"`{PREPARED.command} --out {quoted(out)}`, which downloads "
            "cifar-10-python.tar.gz (170 MB) from Alex Krizhevsky's page, "
            "https://www.cs.toronto.edu/~kriz/cifar.html, or takes it from a folder that you name "
            "with --archives DIR"
        )
    return note_subset(dataset, IMAGES["train"], IMAGES["test"])


def layout_problem(splits: dict[str, LabelledImages]) -> str | None:
    """Return a description of wrong names, shapes, types or labels of the splits, or None."""
    return labelled_problem(splits, CLASSES, (SIDE, SIDE, 3))
