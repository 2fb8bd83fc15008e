"""EMNIST: Balanced from NIST's archive -> upright 28x28 images, prepared; ByMerge's, packaged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow_datasets as tfds

from tsar_jax.data import emnist
from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError

from .archives import RemoteArchive, fetch
from .building import ImageBuilder, Prepared, prepare
from .idx import File, find_files, read_file
from .labelled import Labelled, group, read_labelled, read_tfds
from .packaging import write_packaged_file
from .sources import Source, folder_source, locate_source, open_source

MAPPING = "emnist-balanced-mapping.txt"
# The archive has 562 MB, so none of its members has more; those that are read have far less.
LARGEST_MEMBER = 1 << 29
TFDS_NAME = "emnist/balanced"
PAGE = "https://www.nist.gov/itl/products-and-services/emnist-dataset"

# Size and digest as published with tensorflow-datasets.
REMOTE = RemoteArchive(
    url="https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
    size=561_753_746,
    sha256="fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
)
OBTAIN = f"put it there from {REMOTE.filename} of {PAGE}, or leave out --archives to download that"

# Gives the file of an official name, without the ending that tells how it is packed.
Find = Callable[[str], File]


class EmnistBalanced28(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """EMNIST Balanced (Cohen et al., 2017), grey, 28x28, upright. A work of the US government."""

    VERSION = tfds.core.Version(emnist.PREPARED.version)
    name = emnist.PREPARED.folder


def prepare_emnist(
    archives: Path | None, tfds_data: Path | None, out: Path, overwrite: bool = False
) -> Prepared:
    """Prepare EMNIST Balanced in `<out>/emnist_balanced28/1.0.0`.

    Without either folder gzip.zip is downloaded.

    Args:
        archives: a folder with gzip.zip or with Balanced's files of it.
        tfds_data: in its stead, a folder where tensorflow-datasets prepared emnist/balanced.
        out: the folder of prepared data sets.
        overwrite: whether data that are there already are prepared anew.

    Raises:
        UserError: the data are missing, damaged or not EMNIST Balanced, or `out` cannot be written.
    """

    def read() -> dict[str, ImageSet]:
        if tfds_data is not None:
            return {split: _read_prepared(tfds_data, split) for split in emnist.IMAGES_PER_CLASS}
        with open_files(archives, out / "downloads" / "emnist") as find:
            return read_balanced(find)

    return prepare(EmnistBalanced28, read, out, overwrite)


@contextmanager
def open_files(archives: Path | None, downloads: Path) -> Iterator[Find]:
    """Open the files in gzip.zip, in an archive of another name or in the user's folder."""
    if archives is None:
        path = fetch(REMOTE, downloads)
    else:
        missing = f"{{archives}} has no file {MAPPING}, but {{found}}: {OBTAIN}"
        path = locate_source(archives, REMOTE.filename, _has_mapping, missing)
    with open_source(path, LARGEST_MEMBER) as source:
        yield lambda name: read_file(source, name, OBTAIN)


def _has_mapping(folder: Source) -> bool:
    return bool(find_files(folder, (MAPPING,))[MAPPING])


def read_balanced(find: Find) -> dict[str, ImageSet]:
    """Return the splits of Balanced, uint8 [47, images_per_class, 28, 28], upright.

    Raises UserError if the files are not those of EMNIST Balanced.
    """
    check_mapping(find(MAPPING))
    return {
        split: _upright(_read_idx(find, f"emnist-balanced-{split}"), each, "EMNIST Balanced")
        for split, each in emnist.IMAGES_PER_CLASS.items()
    }


def check_mapping(file: File) -> None:
    """Raise UserError unless the lines, label and character code, are of EMNIST's classes."""
    expected = [[str(label), str(ord(name))] for label, name in enumerate(emnist.NAMES)]
    lines = file.data.decode("ascii", "replace").splitlines()
    if [line.split() for line in lines if line.strip()] != expected:
        raise UserError(
            f"{file.name} does not map the labels 0 to {len(expected) - 1} to the codes of the "
            f"characters {''.join(emnist.NAMES)}: get it again"
        )


def _read_idx(find: Find, name: str) -> Labelled:
    kinds = (f"{name}-images-idx3-ubyte", f"{name}-labels-idx1-ubyte")
    return read_labelled(*map(find, kinds))


def _read_prepared(folder: Path, split: str) -> ImageSet:
    found = read_tfds(TFDS_NAME, folder, split)
    return _upright(found, emnist.IMAGES_PER_CLASS[split], "EMNIST Balanced")


def _upright(labelled: Labelled, each: int, title: str) -> ImageSet:
    """Return images grouped by class and transposed, for NIST stores columns as rows."""
    upright = labelled._replace(images=labelled.images.swapaxes(1, 2))
    return group(upright, emnist.NAMES, each * len(emnist.NAMES), each, title)


def package_emnist(archives: Path, output: Path = emnist.PACKAGED) -> Path:
    """Write the file that comes with `tsar_jax`: the same bytes whenever zlib is the same.

    archives: a folder with the images drawn from EMNIST ByMerge's test images, their labels and the
    mapping. Raises UserError if they are missing, damaged or not the published ones.
    """

    def find(name: str) -> File:
        return read_file(source, name, "name the folder of the packaged images' source")

    if not archives.is_dir():
        raise UserError(f"the archives folder {archives} does not exist: name one that does")
    source = folder_source(archives)
    check_mapping(find("emnist-bymerge-mapping.txt"))
    splits = {
        split: _upright(_read_idx(find, f"emnist-bymerge-test{each}"), each, "EMNIST ByMerge")
        for split, each in emnist.PACKAGED_IMAGES_PER_CLASS.items()
    }
    if not emnist.is_published(splits):
        raise UserError(
            f"the images from {archives} do not have the published digests: name the folder of the "
            "packaged images' source"
        )
    return write_packaged_file(output, splits)
