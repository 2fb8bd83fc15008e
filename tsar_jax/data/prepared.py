"""Read the data sets that `tsar-jax prepare` writes.

A prepared data set is a tensorflow-datasets folder `<out>/<name>/<version>` in array_record format,
plus one file, `complete.json`, written last: the SHA-256 of every other file. A folder without it,
or one whose files differ from it, is never read.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from tsar_jax.data.types import Dataset, ImageSet, LabelledDataset, LabelledImages
from tsar_jax.errors import UserError, quoted

RECORD = "complete.json"

Splits = TypeVar("Splits")


class PreparedSet(NamedTuple):
    """A data set that `data_prep` prepares in `<out>/<folder>/<version>`, and how.

    name: its name in `tsar_jax.data.load`. title: its name in prose. command: prepares it.
    """

    name: str
    title: str
    folder: str
    version: str
    command: str


def default_folder() -> Path:
    """Return tensorflow-datasets' data folder: `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    A user without a home folder has prepared nothing there: the path keeps its ~.
    """
    folder = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(os.path.expanduser(folder))


def named_folder(path: str | os.PathLike[str]) -> Path:
    """Return a folder that the user named, with ~ expanded; UserError where no home is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"The home folder in {path} is unknown: name the folder in full.") from None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_record(folder: Path) -> None:
    """Declare a folder complete; to be called last, when all else is written."""
    digests = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
    record = {"sha256": digests}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def read_prepared(folder: Path, remedy: str) -> dict[str, ImageSet]:
    """Return the splits of a prepared data set, grouped by class, checked as `read_labelled` does.

    Raises:
        UserError: as `read_labelled`, and if the images are not class after class, all of one size.
    """
    labelled = read_labelled(folder, remedy)
    try:
        return {split: _group(images) for split, images in labelled.items()}
    except ValueError as error:
        raise UserError(f"the prepared data in {folder} are wrong ({error}): {remedy}") from error


def read_labelled(folder: Path, remedy: str) -> dict[str, LabelledImages]:
    """Return the splits of a prepared data set, after checking every file against its record.

    Args:
        folder: `<out>/<name>/<version>`.
        remedy: advice about a damaged folder, for the error.

    Raises:
        UserError: a file is missing, altered or not in the layout that `data_prep` writes.
    """
    try:
        recorded = dict(json.loads((folder / RECORD).read_text())["sha256"])
    except FileNotFoundError:
        raise UserError(f"the prepared data in {folder} are incomplete: {remedy}") from None
    except OSError as error:
        raise UserError(f"cannot read the prepared data in {folder} ({error}): {remedy}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / RECORD} is damaged: {remedy}") from error
    for name, digest in recorded.items():
        try:
            intact = file_digest(folder / name) == digest
        except OSError as error:
            raise UserError(f"cannot read {folder / name} ({error}): {remedy}") from error
        if not intact:
            raise UserError(f"{folder / name} is not as it was prepared: {remedy}")
    return _read_splits(folder, remedy)


def load_prepared(
    about: PreparedSet, out: Path, problem: Callable[[dict[str, ImageSet]], str | None]
) -> Dataset | None:
    """Return the prepared data set below `out`, or None if nothing was prepared.

    Args:
        about: the data set.
        out: folder of data sets.
        problem: returns a description of splits that are not the data set's, or None.

    Raises:
        UserError: the data are damaged or another data set's.
    """
    splits = _load(about, out, read_prepared, problem)
    return None if splits is None else Dataset(about.name, splits, _source(about, out))


def load_prepared_labelled(
    about: PreparedSet, out: Path, problem: Callable[[dict[str, LabelledImages]], str | None]
) -> LabelledDataset | None:
    """Return as `load_prepared` a data set of splits "train" and "test" with classes of any
    size.
    """
    splits = _load(about, out, read_labelled, problem)
    if splits is None:
        return None
    return LabelledDataset(about.name, splits["train"], splits["test"], _source(about, out))


def _source(about: PreparedSet, out: Path) -> str:
    return f"prepared: {_version(about, out)}"


def _version(about: PreparedSet, out: Path) -> Path:
    return out / about.folder / about.version


def _load(
    about: PreparedSet,
    out: Path,
    read: Callable[[Path, str], Splits],
    problem: Callable[[Splits], str | None],
) -> Splits | None:
    version = _version(about, out)
    try:
        if not version.is_dir():
            return None
    except OSError as error:
        raise UserError(f"cannot look for prepared data in {version} ({error})") from error
    remedy = f"run `{about.command} --out {quoted(out)} --overwrite`"
    splits = read(version, remedy)
    wrong = problem(splits)
    if wrong:
        raise UserError(f"the prepared data in {version} are not {about.title}, {wrong}: {remedy}")
    return splits


def shape_problem(splits: dict[str, ImageSet], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return a description of splits whose images are not uint8 of these shapes, or None."""
    if set(splits) != set(shapes):
        return f"its splits are {sorted(splits)}"
    for split, shape in shapes.items():
        images, names = splits[split].images, splits[split].names
        if images.shape != shape or images.dtype != np.uint8:
            return f"its {split} images are {images.dtype} {list(images.shape)}, not {list(shape)}"
        if len(names) != len(images):
            return f"its {split} split has {len(names)} names for {len(images)} classes"
    return None


def _read_splits(folder: Path, remedy: str) -> dict[str, LabelledImages]:
    # Imported here because the import takes half a second, which only prepared data need.
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(str(folder)).info
    shape, names = info.features["image"].shape, tuple(info.features["label"].names)
    splits = {}
    for split, files in info.splits.items():
        records = _read_records([os.fspath(path) for path in files.filepaths])
        try:
            splits[split] = LabelledImages(*_parse(records, shape, len(names)), names)
        except (ValueError, IndexError) as error:
            raise UserError(f"split {split!r} of {folder} is wrong ({error}): {remedy}") from error
    return splits


def _read_records(paths: list[str]) -> list[bytes]:
    """Return all records of the shards, in their order."""
    from array_record.python.array_record_module import ArrayRecordReader

    records: list[bytes] = []
    for path in paths:
        reader = ArrayRecordReader(path)
        records += reader.read_all()
        reader.close()
    return records


def _parse(
    records: list[bytes], shape: tuple[int, ...], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Parse serialised `tf.train.Example`s to images uint8 [records, *shape], labels int32
    [records].

    It is several times faster than tensorflow-datasets' `as_data_source`, which is more general.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    images = np.empty((len(records), *shape), np.uint8)
    labels = np.empty(len(records), np.int32)
    for index, record in enumerate(records):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        pixels = feature["image"].bytes_list.value[0]
        images[index] = np.frombuffer(pixels, np.uint8).reshape(shape)
        label = feature["label"].int64_list.value[0]
        if not 0 <= label < classes:
            raise ValueError(f"a label is {label}, not 0 to {classes - 1}")
        labels[index] = label
    return images, labels


def _group(labelled: LabelledImages) -> ImageSet:
    """Reshape images [images, ...], class after class, to [classes, images_per_class, ...]."""
    images, labels = labelled.images, labelled.labels
    classes = len(np.unique(labels))
    if not classes or len(labels) % classes:
        raise ValueError(f"{len(labels)} images do not share out among {classes} classes")
    first, per_class = int(labels[0]), len(labels) // classes
    if not np.array_equal(labels, first + np.repeat(np.arange(classes), per_class)):
        raise ValueError("its images are not in the order of their classes")
    grouped = images.reshape(classes, per_class, *images.shape[1:])
    return ImageSet(grouped, labelled.names[first : first + classes])
