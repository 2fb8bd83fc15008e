"""Writing of data sets for tensorflow-datasets in array_record format, as a whole or not at all.

A data set is written in `<out>/<name>/incomplete`, read back, compared, and only then renamed to
`<out>/<name>/<version>`, with which it changes places where that is there already. A lock in
`<out>/<name>` keeps two preparations apart and dies with its process, so whatever a later run finds
in `incomplete` was left by one that was killed, and is cleared; data that such a one had moved to
`previous` are put back.
"""

import contextlib
import ctypes
import fcntl
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from tsar_jax.atomic import make_missing, open_lock, remove_empty
from tsar_jax.data.labelled import pool
from tsar_jax.data.prepared import read_labelled, write_record
from tsar_jax.data.types import ImageSet, LabelledImages
from tsar_jax.errors import UserError

from .progress import track

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Arguments of Linux's renameat2: paths are relative to the working folder, and are exchanged."""


class ImageBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A builder of examples {"image": uint8, "label": class} from images, in their order.

    A subclass gives `VERSION` and, in its docstring, the description. Nothing is registered with
    tensorflow-datasets, so that `tfds.builder(name)` reads the prepared data rather than ask for
    the images.
    """

    # tensorflow-datasets downloads nothing here; looking for its checksums would need
    # importlib_resources, which it does not install.
    url_infos = None

    def __init__(self, splits: dict[str, LabelledImages], **options: Any) -> None:
        """Set up the builder.

        Args:
            splits: images of one shape, all with the same names of classes.
            options: options of every builder, such as `data_dir`.
        """
        self._splits = splits
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        some = next(iter(self._splits.values()))
        # Image would do for `image`, but reading or writing one needs TensorFlow.
        # Without an encoding every pixel is a number of its own, and reading takes seconds.
        image = tfds.features.Tensor(shape=some.images.shape[1:], dtype=np.uint8, encoding="bytes")
        features = tfds.features.FeaturesDict(
            {
                "image": image,
                "label": tfds.features.ClassLabel(names=some.names),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=features,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {name: self._generate_examples(name) for name in self._splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = self._splits[split].images, self._splits[split].labels
        for index, image in enumerate(track(images, len(images), f"Writing {split}")):
            yield index, {"image": image, "label": int(labels[index])}


def flatten(splits: dict[str, ImageSet]) -> dict[str, LabelledImages]:
    """Return the images of each split in one array, class after class, as views.

    Labels count on from split to split, but splits of the same classes have the same labels.
    """
    names, first = number_classes(splits)
    flat = {split: pool([images]) for split, images in splits.items()}
    return {
        split: LabelledImages(images.images, first[split] + images.labels, tuple(names))
        for split, images in flat.items()
    }


def number_classes(splits: dict[str, ImageSet]) -> tuple[list[str], dict[str, int]]:
    """Return the names of all classes, each once, and by split the label of its first class.

    Two splits have all their classes in common, in the same order, or none.
    """
    names: list[str] = []
    first: dict[tuple[str, ...], int] = {}
    for split in splits.values():
        if split.names not in first:
            first[split.names] = len(names)
            names += split.names
    return names, {name: first[split.names] for name, split in splits.items()}


class Prepared(NamedTuple):
    """The folder of a prepared data set, and whether this call wrote it."""

    folder: Path
    written: bool


def prepare(
    builder: type[ImageBuilder],
    read: Callable[[], dict[str, ImageSet]],
    out: Path,
    overwrite: bool = False,
) -> Prepared:
    """Prepare images that are grouped by class, as `prepare_labelled` does."""
    return prepare_labelled(builder, lambda: flatten(read()), out, overwrite)


def prepare_labelled(
    builder: type[ImageBuilder],
    read: Callable[[], dict[str, LabelledImages]],
    out: Path,
    overwrite: bool = False,
) -> Prepared:
    """Write the images that `read` returns to `<out>/<name>/<version>` unless they are there.

    Raises:
        UserError: the folder cannot be written, is there but damaged, or another process is
            preparing the same data set; and whatever `read` raises.
    """
    home = out / builder.name
    final = home / str(builder.VERSION)
    try:
        with _made(home), _locked(home):
            _clear(home, final)
            if final.exists() and not overwrite:
                read_labelled(final, "repeat the command with --overwrite")
                return Prepared(final, written=False)
            _write(builder, read(), home, final)
    except OSError as error:
        raise UserError(
            f"cannot write to {home} ({error}): make it writable, free space there, or name "
            "another folder with --out"
        ) from error
    return Prepared(final, written=True)


@contextlib.contextmanager
def _made(home: Path) -> Iterator[None]:
    """Make a folder, and remove it again with its new parents if nothing is kept there."""
    made = make_missing(home)
    try:
        yield
    finally:
        remove_empty(made)


def _clear(home: Path, final: Path) -> None:
    """Remove what a preparation that was killed has left."""
    previous = home / "previous"
    if previous.exists() and not final.exists():
        previous.rename(final)
    for left in (previous, home / "incomplete"):
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    path = home / ".lock"
    with open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                raise BlockingIOError  # another made it anew before this one was locked
        except BlockingIOError:
            raise UserError(
                f"another process is preparing data in {home}: wait until it ends"
            ) from None
        try:
            yield
        finally:
            if [entry.name for entry in home.iterdir()] == [path.name]:
                path.unlink()


def _write(
    builder: type[ImageBuilder], splits: dict[str, LabelledImages], home: Path, final: Path
) -> None:
    incomplete = home / "incomplete"
    shutil.rmtree(incomplete, ignore_errors=True)
    try:
        written = incomplete / builder.name / str(builder.VERSION)
        incomplete.mkdir()
        _build(builder, splits, incomplete)
        write_record(written)
        _compare(splits, read_labelled(written, "the disk may be failing"))
        _put_in_place(written, final, home / "previous")
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


def _put_in_place(written: Path, final: Path, previous: Path) -> None:
    """Rename the folder `written` to `final`; an earlier `final` becomes `written` or is removed.

    Where the system cannot exchange them in one step, the former is kept as `previous` in between.
    """
    if not final.exists():
        written.rename(final)
    elif not _exchange(written, final):
        final.rename(previous)
        try:
            written.rename(final)
        except BaseException:
            previous.rename(final)
            raise
        shutil.rmtree(previous, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places at once; False where the system has no way to do so."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    arguments = AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE
    return bool(rename(*arguments) == 0)


def _build(builder: type[ImageBuilder], splits: dict[str, LabelledImages], folder: Path) -> None:
    tfds.disable_progress_bar()
    # Beyond so many bytes a split would be sorted on the disk, which needs TensorFlow. In memory it
    # is anyway.
    limit, shuffle.MAX_MEM_BUFFER_SIZE = shuffle.MAX_MEM_BUFFER_SIZE, sys.maxsize
    # It makes a temporary folder and leaves it there: here it goes with `incomplete`.
    usual, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        # tensorflow-datasets announces on standard output a folder that is not the final one.
        with contextlib.redirect_stdout(io.StringIO()):
            options = {"data_dir": folder, "file_format": "array_record"}
            builder(splits, **options).download_and_prepare()
    except RuntimeError as error:
        # array_record reports a failed write in this way, over several lines.
        raise OSError(" ".join(str(error).split())) from error
    finally:
        shuffle.MAX_MEM_BUFFER_SIZE = limit
        tempfile.tempdir = usual
        tfds.enable_progress_bar()


def _compare(given: dict[str, LabelledImages], read: dict[str, LabelledImages]) -> None:
    same = set(given) == set(read) and all(
        given[split].names == read[split].names
        and np.array_equal(given[split].labels, read[split].labels)
        and np.array_equal(given[split].images, read[split].images)
        for split in given
    )
    if not same:
        raise OSError("what was read back differs from what was written")
