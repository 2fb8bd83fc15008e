"""Omniglot (Lake et al., 2015) at 28x28: 964 background and 659 evaluation classes of 20 drawings.

Every image is the official 105x105 drawing made grey and resized by Pillow's Lanczos filter, dark
ink on white, 0 to 255; classes and images are in the order of their sorted paths. All of it comes
with this package; the MIT licence of the data is in `packaged/OMNIGLOT_LICENSE`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tsar_jax.data.labelled import train_and_test
from tsar_jax.data.packaged_file import digests, read_packaged_file
from tsar_jax.data.prepared import PreparedSet, default_folder, load_prepared, shape_problem
from tsar_jax.data.types import Dataset, ImageSet, LabelledDataset

if TYPE_CHECKING:
    import jax

PREPARED = PreparedSet(
    name="omniglot",
    title="Omniglot",
    # Not plain "omniglot", which tensorflow-datasets' own builder (105x105) writes to.
    folder="omniglot28",
    version="1.0.0",
    command="tsar-jax prepare omniglot",
)
PACKAGED = Path(__file__).parent / "packaged" / "omniglot28.npz"
IMAGES_PER_CLASS = 20
SIDE = 28


class Split(NamedTuple):
    """Expected content of a split.

    classes: their number. images_sha256: of the images' bytes. names_sha256: of the names, a line
    each.
    """

    classes: int
    images_sha256: str
    names_sha256: str


SPLITS = {
    "background": Split(
        classes=964,
        images_sha256="e530259da819da5c3e1f317397ba27e7a19666beeee4061377e1a1f6266b0acb",
        names_sha256="90912b225af0db7fd482aace64619493b5dff1e59ac7dfa843e13d9da321416c",
    ),
    "evaluation": Split(
        classes=659,
        images_sha256="e8f4e050572d0036ad7e121c0e53bedfbb4988e5eb745e0feac0e8484f61c863",
        names_sha256="74ef7f7b66c3873a2127f490445c5f471c25e0490318b7613c9dda3e8cc5cf3a",
    ),
}


def load(folder: Path | None = None) -> Dataset:
    """Return Omniglot from `<folder>/omniglot28` where it was prepared, else as it was packaged.

    Args:
        folder: of data sets; None: where tensorflow-datasets keeps its data.

    Returns:
        Splits "background", uint8 [964, 20, 28, 28], and "evaluation", uint8 [659, 20, 28, 28]; a
        class is named "Alphabet/character01".

    Raises:
        UserError: the data are damaged.
    """
    out = default_folder() if folder is None else folder
    dataset = load_prepared(PREPARED, out, layout_problem)
    return dataset or Dataset("omniglot", read_packaged(PACKAGED), f"packaged: {PACKAGED}")


def load_on_device() -> "dict[str, jax.Array]":
    """Return the images of each split on the device, uint8 [classes, 20, 28, 28]."""
    import jax.numpy as jnp  # imported here, because reading a data set on the host needs no JAX

    return {name: jnp.asarray(split.images) for name, split in load().splits.items()}


def load_labelled(folder: Path | None = None) -> LabelledDataset:
    """Return all 1623 classes, background before evaluation; images 4, 9, 14 and 19 are for
    testing.

    Images are uint8 [25968, 28, 28] for training and [6492, 28, 28] for testing. Argument and
    errors are those of `load`.
    """
    return train_and_test(load(folder))


def read_packaged(path: Path) -> dict[str, ImageSet]:
    """Return the splits in a packaged file. Raises UserError unless they are the published ones."""
    remedy = (
        "install tsar_jax anew, or rebuild the file with "
        "`tsar-jax prepare package-omniglot --archives DIR`"
    )
    return read_packaged_file(path, SPLITS, is_published, remedy)


def layout_problem(splits: dict[str, ImageSet]) -> str | None:
    """Return a description of wrong names, shapes or types of the splits, or None."""
    shape = (IMAGES_PER_CLASS, SIDE, SIDE)
    return shape_problem(splits, {name: (split.classes, *shape) for name, split in SPLITS.items()})


def is_published(splits: dict[str, ImageSet]) -> bool:
    """Return whether the splits are, byte for byte, those with the digests above."""
    return layout_problem(splits) is None and all(
        digests(splits[split]) == (expected.images_sha256, expected.names_sha256)
        for split, expected in SPLITS.items()
    )
