"""EMNIST (Cohen et al., 2017) at 28x28: 47 classes of handwritten digits and letters.

Every image is upright, bright ink on black, 0 to 255. The classes are in the order of their labels;
those of small letters that look like their capitals are merged with these.

This package contains not the official Balanced set but 400 images a class, drawn at random from the
test images of EMNIST ByMerge, which has the same classes: accuracies on them do not compare with
published ones. Balanced itself can be prepared: 2400 training and 400 test images a class. Both are
works of the US government: see `packaged/EMNIST_NOTICE`.
"""

from pathlib import Path

from tsar_jax.data.labelled import train_and_test
from tsar_jax.data.packaged_file import digests, read_packaged_file
from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared, shape_problem
from tsar_jax.data.types import Dataset, ImageSet, LabelledDataset

PREPARED = PreparedSet(
    name="emnist",
    title="EMNIST Balanced",
    # Not plain "emnist", which tensorflow-datasets' own builder writes to.
    folder="emnist_balanced28",
    version="1.0.0",
    command="tsar-jax prepare emnist",
)
PACKAGED = Path(__file__).parent / "packaged" / "emnist_bymerge_test400.npz"
NAMES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
DIGITS = 10
IMAGES_PER_CLASS = {"train": 2400, "test": 400}
PACKAGED_IMAGES_PER_CLASS = {"train": 400}
# SHA-256 of the packaged images and of their names, from `digests`.
PACKAGED_SHA256 = (
    "9afe328dd031a287f7c27faec19d6455e65735dfadcbc4c45c74a90eb1b93ca8",
    "ec2e4238dd4e7810b3762ebb27b68c5a97ed30e49b70b4fa37ad0f7219da6d60",
)
SIDE = 28


def load(folder: Path | None = None) -> Dataset:
    """Return EMNIST Balanced from `<folder>/emnist_balanced28` if prepared, else the packaged
    images.

    Args:
        folder: of data sets; None: where tensorflow-datasets keeps its data.

    Returns:
        Of Balanced the splits "train", uint8 [47, 2400, 28, 28], and "test", uint8 [47, 400, 28,
        28], of the same classes. Of the packaged images, from EMNIST ByMerge's test images, the
        split "train", uint8 [47, 400, 28, 28]. A class is named by its character.

    Raises:
        UserError: the data are damaged.
    """
    out = default_folder() if folder is None else folder
    dataset = load_prepared(PREPARED, out, layout_problem)
    return dataset or Dataset(
        "emnist",
        read_packaged(PACKAGED),
        f"packaged: EMNIST ByMerge test, {PACKAGED_IMAGES_PER_CLASS['train']} images a class: "
        f"{PACKAGED}",
    )


def load_labelled(folder: Path | None = None) -> LabelledDataset:
    """Return all 47 classes, from where `load` finds them.

    Of Balanced uint8 [112800, 28, 28] for training and [18800, 28, 28] for testing. Of the packaged
    images numbers 4, 9, 14, ... of a class are for testing: [15040, 28, 28] and [3760, 28, 28].
    """
    return train_and_test(load(folder))


def load_labelled_digits(folder: Path | None = None) -> LabelledDataset:
    """Return the classes "0" to "9" of `load_labelled`."""
    dataset = load(folder)
    splits = {
        split: ImageSet(images.images[:DIGITS], images.names[:DIGITS])
        for split, images in dataset.splits.items()
    }
    return train_and_test(Dataset("emnist_digits", splits, f"{dataset.source}; digits alone"))


def read_packaged(path: Path) -> dict[str, ImageSet]:
    """Return the split in a packaged file. Raises UserError unless it is the published one
    exactly.
    """
    remedy = f"install tsar_jax anew, or prepare EMNIST Balanced with `{PREPARED.command}`"
    return read_packaged_file(path, PACKAGED_IMAGES_PER_CLASS, is_published, remedy)


def layout_problem(splits: dict[str, ImageSet]) -> str | None:
    """Return a description of wrong names, shapes or types of Balanced's splits, or None."""
    shapes = {split: (len(NAMES), count, SIDE, SIDE) for split, count in IMAGES_PER_CLASS.items()}
    problem = shape_problem(splits, shapes)
    if problem is None and any(images.names != NAMES for images in splits.values()):
        problem = f"its classes are not {''.join(NAMES)}"
    return problem


def is_published(splits: dict[str, ImageSet]) -> bool:
    """Return whether the packaged split is, byte for byte, the one with the digests above."""
    return digests(splits["train"]) == PACKAGED_SHA256
