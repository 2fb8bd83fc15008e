"""MNIST: the four official files -> 28x28 images, prepared."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from tsar_jax.data import mnist
from tsar_jax.data.types import LabelledImages

from .archives import RemoteArchive, fetch
from .building import ImageBuilder, Prepared, prepare_labelled
from .idx import LARGEST, find_files, read_file, usual_name
from .labelled import Labelled, check, read_labelled, read_tfds
from .sources import Source, locate_source, open_source

TFDS_NAME = "mnist"
MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist/"

# By split, the images and their labels; sizes and digests as published with tensorflow-datasets.
REMOTE = {
    "train": (
        RemoteArchive(
            url=MIRROR + "train-images-idx3-ubyte.gz",
            size=9_912_422,
            sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        RemoteArchive(
            url=MIRROR + "train-labels-idx1-ubyte.gz",
            size=28_881,
            sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
    ),
    "test": (
        RemoteArchive(
            url=MIRROR + "t10k-images-idx3-ubyte.gz",
            size=1_648_877,
            sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        RemoteArchive(
            url=MIRROR + "t10k-labels-idx1-ubyte.gz",
            size=4_542,
            sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
}
FILES = {
    split: tuple(usual_name(remote.filename) for remote in remotes)
    for split, remotes in REMOTE.items()
}
OBTAIN = f"put it there from {MIRROR}, or leave out --archives to download it"


class Mnist28(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """MNIST (LeCun et al., 1998), grey, 28x28, in the published order."""

    VERSION = tfds.core.Version(mnist.PREPARED.version)
    name = mnist.PREPARED.folder


def prepare_mnist(
    archives: Path | None, tfds_data: Path | None, out: Path, overwrite: bool = False
) -> Prepared:
    """Prepare MNIST in `<out>/mnist28/2.0.0`, complete.

    Without either folder the files are downloaded.

    Args:
        archives: a folder with the four official files, .gz or unpacked.
        tfds_data: in its stead, a folder where tensorflow-datasets prepared mnist.
        out: the folder of prepared data sets.
        overwrite: whether data that are there already are prepared anew.

    Raises:
        UserError: the data are missing, damaged or not MNIST, or `out` cannot be written.
    """

    def read() -> dict[str, LabelledImages]:
        with contextlib.ExitStack() as stack:
            if tfds_data is None:
                source = stack.enter_context(open_files(archives, out / "downloads" / "mnist"))
            found = {
                split: read_tfds(TFDS_NAME, tfds_data, split)
                if tfds_data is not None
                else read_files(source, split)
                for split in mnist.IMAGES
            }
        return {
            split: check(
                labelled, mnist.NAMES, mnist.IMAGES[split], mnist.IMAGES_PER_CLASS[split], "MNIST"
            )
            for split, labelled in found.items()
        }

    return prepare_labelled(Mnist28, read, out, overwrite)


@contextlib.contextmanager
def open_files(archives: Path | None, downloads: Path) -> Iterator[Source]:
    """Open the four files in the folder or archive that the user named, None: downloaded.

    They may lie anywhere in it, by their official names or similar ones, compressed or not.
    """
    if archives is None:
        folders = {fetch(remote, downloads).parent for both in REMOTE.values() for remote in both}
        path = folders.pop()
    else:
        missing = f"{{archives}} has no file {FILES['train'][0]}.gz, but {{found}}: {OBTAIN}"
        path = locate_source(archives, "", _has_any, missing)
    with open_source(path, LARGEST) as source:
        yield source


def _has_any(folder: Source) -> bool:
    return any(find_files(folder, tuple(name for both in FILES.values() for name in both)).values())


def read_files(source: Source, split: str) -> Labelled:
    """Return a split's images and labels."""
    images, labels = (read_file(source, name, OBTAIN) for name in FILES[split])
    return read_labelled(images, labels)
