"""CIFAR-100, from its archive to what `load` gives."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from checks import assert_nothing_prepared, assert_refused, assert_same, run_main
from small_cifar100 import NAMES, SmallCifar100, python2_pickle, write_tar

import data_prep.cifar100 as preparation
import tsar_jax.data
from data_prep import cifar
from data_prep.archives import RemoteArchive
from tsar_jax.data import cifar100
from tsar_jax.data.prepared import file_digest
from tsar_jax.errors import UserError


def test_what_is_prepared_is_what_load_gives(
    small_cifar: SmallCifar100, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("cifar100", "--archives", small_cifar.archives, "--out", tmp_path)
    assert run_main(*command) == 0
    folder = tmp_path / "cifar100_28" / "1.0.0"
    original = tmp_path / "cifar100_32" / "1.0.0"
    message = f"CIFAR-100 is prepared in {folder}\nCIFAR-100 is prepared in {original}\n"
    assert capsys.readouterr().out == message
    dataset = tsar_jax.data.load("cifar100", tmp_path)
    assert (dataset.name, dataset.source) == ("cifar100", f"prepared: {folder}")
    assert dataset.splits["train"].images.shape == (3, 4, 28, 28, 3)
    assert dataset.splits["test"].images.shape == (3, 2, 28, 28, 3)
    assert_same(dataset.splits, small_cifar.splits)
    labelled = tsar_jax.data.load_labelled("cifar100", tmp_path)
    assert (labelled.name, labelled.source) == ("cifar100", f"prepared: {original}")
    for split, images in {"train": labelled.train, "test": labelled.test}.items():
        expected = small_cifar.originals[split].images
        np.testing.assert_array_equal(images.images, expected.reshape(-1, 32, 32, 3), strict=True)
        np.testing.assert_array_equal(images.labels, np.repeat([0, 1, 2], expected.shape[1]))
    assert run_main(*command) == 0
    assert capsys.readouterr().out.count("already prepared") == 2
    assert run_main(*command, "--overwrite") == 0


def test_an_archive_of_any_size_is_read_in_the_sizes_asked_for(small_cifar: SmallCifar100) -> None:
    splits = preparation.read_archive(small_cifar.path, 3, {"train": 4, "test": 2})
    assert_same(splits, small_cifar.originals)
    with pytest.raises(UserError, match="does not name 100 classes"):
        preparation.read_archive(small_cifar.path, 100, {"train": 500, "test": 100})


def test_one_size_that_is_missing_is_prepared_beside_the_other(
    small_cifar: SmallCifar100, tmp_path: Path
) -> None:
    preparation.prepare_cifar100(small_cifar.archives, tmp_path)
    shutil.rmtree(tmp_path / "cifar100_32")
    with pytest.raises(UserError, match=f"CIFAR-100 at 32x32 is not prepared in {tmp_path}: run"):
        tsar_jax.data.load_labelled("cifar100", tmp_path)
    results = preparation.prepare_cifar100(small_cifar.archives, tmp_path)
    assert [result.written for result in results] == [False, True]
    assert tsar_jax.data.load_labelled("cifar100", tmp_path).train.images.shape == (12, 32, 32, 3)


def test_the_published_sizes_are_asked_for() -> None:
    assert cifar100.CLASSES == 100
    assert cifar100.IMAGES_PER_CLASS == {"train": 500, "test": 100}


def test_tensorflow_datasets_reads_it_too_with_one_set_of_labels(
    small_cifar: SmallCifar100, tmp_path: Path
) -> None:
    preparation.prepare_cifar100(small_cifar.archives, tmp_path)
    builder = tfds.builder("cifar100_28", data_dir=tmp_path)
    assert builder.info.features["label"].names == list(NAMES)
    source = builder.as_data_source(split="test")
    np.testing.assert_array_equal(
        source[3]["image"], small_cifar.splits["test"].images[1, 1], strict=True
    )
    assert [example["label"] for example in source] == [0, 0, 1, 1, 2, 2]


def test_the_archive_is_downloaded_where_no_folder_is_named(
    small_cifar: SmallCifar100, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_cifar.path
    remote = RemoteArchive(path.as_uri(), path.stat().st_size, file_digest(path))
    monkeypatch.setattr(preparation, "REMOTE", remote)
    assert run_main("cifar100", "--out", tmp_path / "out") == 0
    assert_same(tsar_jax.data.load("cifar100", tmp_path / "out").splits, small_cifar.splits)


Change = Callable[[SmallCifar100], Path]


def labels(small: SmallCifar100, *changed: object) -> list:
    return [*changed, *small.contents["train"]["fine_labels"][len(changed) :]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.changed("meta", fine_label_names=["a", "b"]), "does not name 3 classes"),
        (lambda s: s.changed("meta", fine_label_names=["a", "b", "a"]), "have the same name"),
        (lambda s: s.changed("meta", fine_label_names=["a", "b", "c d"]), "b'c d' is not a name"),
        (lambda s: s.changed("meta", fine_label_names=["a", "b", 7]), "7 is not a name"),
        (lambda s: s.changed("meta", fine_label_names=None), "does not name 3 classes"),
        (lambda s: s.write(meta=python2_pickle([1])), "meta' is not as expected.*a dictionary"),
        (lambda s: s.write(meta=b""), "meta' is not as expected"),
        (lambda s: s.changed("test", fine_labels=[0]), r"not an array of shape \[1, 3072\]"),
        (lambda s: s.changed("test", fine_labels=None), "test' .*does not list fine labels"),
        (lambda s: s.changed("train", fine_labels=labels(s, 3)), "not a number from 0 to 2"),
        (lambda s: s.changed("train", fine_labels=labels(s, -1)), "not a number from 0 to 2"),
        (lambda s: s.changed("train", fine_labels=labels(s, "0")), "not a number from 0 to 2"),
        (lambda s: s.changed("train", fine_labels=[0] * 12), "class 0 has 12 images, not 4"),
        (lambda s: s.changed("train", data=np.zeros((11, 3072), np.uint8)), r"shape \[12, 3072\]"),
        (lambda s: s.changed("train", data=np.zeros((12, 3072), np.int8)), "of b'i1', not of by"),
        (lambda s: s.changed("train", data=[1, 2]), r"not an array of shape \[12, 3072\]"),
        (lambda s: s.changed("train", data=None), r"not an array of shape \[12, 3072\]"),
        (lambda s: write_tar(s.path, {}), "has no member 'cifar-100-python/meta'"),
        (lambda s: write_tar(s.path, {"../meta": b""}), "leads out of the archive"),
    ],
)
def test_a_wrong_archive_is_one_clear_sentence_and_prepares_nothing(
    small_cifar: SmallCifar100,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    reason: str,
) -> None:
    assert_refused(capsys, "cifar100", change(small_cifar), tmp_path / "out", reason)


class Touches:
    """Pickled, it asks for a file to be made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"echo > {self.path}",)


@pytest.mark.parametrize("member", ["meta", "train", "test"])
def test_a_hostile_pickle_is_refused_and_not_run(
    small_cifar: SmallCifar100, tmp_path: Path, member: str
) -> None:
    trace = tmp_path / "trace"
    small_cifar.write(**{member: pickle.dumps({b"data": Touches(trace)}, 2)})
    with pytest.raises(UserError, match=rf"cifar-100-python/{member}.*asks for posix\.system"):
        preparation.prepare_cifar100(small_cifar.archives, tmp_path / "out")
    assert not trace.exists()
    assert_nothing_prepared(tmp_path / "out")


def test_a_truncated_archive_prepares_nothing(small_cifar: SmallCifar100, tmp_path: Path) -> None:
    small_cifar.path.write_bytes(small_cifar.path.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{small_cifar.path} is not a complete tar.gz archive"):
        preparation.prepare_cifar100(small_cifar.archives, tmp_path / "out")
    assert_nothing_prepared(tmp_path / "out")


def test_an_oversized_archive_prepares_nothing(
    small_cifar: SmallCifar100, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "LARGEST_ARCHIVE", 50_000)
    with pytest.raises(UserError, match="unpacks to more than 50000 bytes"):
        preparation.prepare_cifar100(small_cifar.archives, tmp_path / "out")
    assert_nothing_prepared(tmp_path / "out")


def test_prepared_data_of_other_classes_are_not_taken_for_cifar100(
    small_cifar: SmallCifar100, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation.prepare_cifar100(small_cifar.archives, tmp_path)
    monkeypatch.setattr(cifar100, "CLASSES", 100)
    with pytest.raises(UserError, match=r"are not CIFAR-100, its train images .*\[100, 4, 28"):
        tsar_jax.data.load("cifar100", tmp_path)
