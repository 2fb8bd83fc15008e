"""Tiny ImageNet (Stanford CS231n) at 64x64: 200 classes of 500 training and 50 test images.

The images for testing are the official validation images, since the official test images come
without labels. Every image is as published, 0 to 255, but the grey ones are made RGB. The
classes are in the order of their names (WordNet numbers), the images in that of their sorted paths.
ImageNet's terms do not allow for them to be part of this package. A copy with fewer images also
works, if it has some of every class.
"""

from pathlib import Path

from tsar_jax.data.labelled import labelled_problem, note_subset
from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared_labelled
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.errors import DataNotPrepared, quoted

PREPARED = PreparedSet(
    name="tiny_imagenet",
    title="Tiny ImageNet",
    folder="tiny_imagenet_64",
    version="1.0.0",
    command="tsar-jax prepare tiny-imagenet",
)
CLASSES = 200
IMAGES = {"train": 100_000, "test": 10_000}
SIDE = 64


def load_labelled(folder: Path | None = None) -> LabelledDataset:
    """Return Tiny ImageNet from `<folder>/tiny_imagenet_64`, where it was prepared.

    Args:
        folder: of data sets; None: where tensorflow-datasets keeps its data.

    Returns:
        Images uint8 [100000, 64, 64, 3] for training and [10000, 64, 64, 3] for testing; of fewer
        the source says how many there are.

    Raises:
        UserError: nothing was prepared, or the data are damaged.
    """
    out = default_folder() if folder is None else folder
    dataset = load_prepared_labelled(PREPARED, out, layout_problem)
    if dataset is None:
        raise DataNotPrepared(
            f"Tiny ImageNet is not prepared in {out}: run "
            f"`{PREPARED.command} --out {quoted(out)}`, which downloads "
            "tiny-imagenet-200.zip (248 MB) from https://cs231n.stanford.edu under "
            "ImageNet's terms, or takes it from a folder that you name with --archives DIR"
        )
    return note_subset(dataset, IMAGES["train"], IMAGES["test"])


def layout_problem(splits: dict[str, LabelledImages]) -> str | None:
    """Return a description of wrong names, shapes, types or labels of the splits, or None."""
    return labelled_problem(splits, CLASSES, (SIDE, SIDE, 3))
