"""CIFAR-10, from its archive to what `load_labelled` gives."""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from checks import assert_nothing_prepared, assert_refused, assert_same_labelled, run_main
from small_cifar10 import FOLDER, NAMES, SmallCifar10
from small_cifar100 import python2_pickle, write_tar, write_tar_members

import data_prep.cifar10 as preparation
import tsar_jax.data
from data_prep import cifar
from data_prep.archives import RemoteArchive
from tsar_jax.data import cifar10
from tsar_jax.data.prepared import file_digest
from tsar_jax.errors import UserError


def test_what_is_prepared_is_what_load_labelled_gives(
    small_cifar10: SmallCifar10,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ("cifar10", "--archives", small_cifar10.archives, "--out", tmp_path)
    assert run_main(*command) == 0
    folder = tmp_path / "cifar10_32" / "1.0.0"
    assert capsys.readouterr().out == f"CIFAR-10 is prepared in {folder}\n"
    dataset = tsar_jax.data.load_labelled("cifar10", tmp_path)
    subset = "a subset: 10 of 50000 training and 4 of 10000 test images"
    assert (dataset.name, dataset.source) == ("cifar10", f"{subset}, prepared: {folder}")
    assert_same_labelled(dataset, small_cifar10.splits)
    monkeypatch.setattr(cifar10, "IMAGES", {"train": 10, "test": 4})
    assert tsar_jax.data.load_labelled("cifar10", tmp_path).source == f"prepared: {folder}"
    assert run_main(*command) == 0
    assert "already prepared" in capsys.readouterr().out
    assert run_main(*command, "--overwrite") == 0


def test_the_published_sizes_are_asked_for() -> None:
    assert (cifar10.CLASSES, cifar10.IMAGES) == (10, {"train": 50_000, "test": 10_000})


def test_what_python_3_wrote_for_python_2_is_read(
    small_cifar10: SmallCifar10, tmp_path: Path
) -> None:
    members = {
        name: pickle.dumps(
            {
                key.encode(): [each.encode() for each in value] if "names" in key else value
                for key, value in content.items()
            },
            2,
        )
        for name, content in small_cifar10.contents.items()
    }
    write_tar(small_cifar10.path, {FOLDER + name: data for name, data in members.items()})
    preparation.prepare_cifar10(small_cifar10.archives, tmp_path)
    found = tsar_jax.data.load_labelled("cifar10", tmp_path)
    assert_same_labelled(found, small_cifar10.splits)


def test_tensorflow_datasets_reads_it_too_in_the_same_order(
    small_cifar10: SmallCifar10, tmp_path: Path
) -> None:
    preparation.prepare_cifar10(small_cifar10.archives, tmp_path)
    builder = tfds.builder("cifar10_32", data_dir=tmp_path)
    assert builder.info.features["label"].names == list(NAMES)
    source = builder.as_data_source(split="test")
    test = small_cifar10.splits["test"]
    np.testing.assert_array_equal(source[3]["image"], test.images[3], strict=True)
    assert [example["label"] for example in source] == test.labels.tolist()


def test_the_archive_is_downloaded_where_no_folder_is_named(
    small_cifar10: SmallCifar10, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_cifar10.path
    remote = RemoteArchive(path.as_uri(), path.stat().st_size, file_digest(path))
    monkeypatch.setattr(preparation, "REMOTE", remote)
    assert run_main("cifar10", "--out", tmp_path / "out") == 0
    found = tsar_jax.data.load_labelled("cifar10", tmp_path / "out")
    assert_same_labelled(found, small_cifar10.splits)


def with_link(small: SmallCifar10) -> Path:
    link = tarfile.TarInfo(FOLDER + "test_batch")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return write_tar_members(small.path, [(link, b"")])


def data(images: int, dtype: str = "u1") -> np.ndarray:
    return np.zeros((images, 3072), dtype)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.changed("meta", label_names=["a", "b"]), "does not name 3 classes"),
        (lambda s: s.changed("meta", label_names=["a", "b", "a"]), "have the same name"),
        (lambda s: s.changed("meta", label_names=["a", "b", "../c"]), "b'../c' is not a name"),
        (lambda s: s.write(meta=None), "has no member 'cifar-10-batches-py/batches.meta'"),
        (lambda s: s.write(test_batch=None), "has no member 'cifar-10-batches-py/test_batch'"),
        (lambda s: s.write(data_batch_4=None), "has no member 'cifar-10-batches-py/data_batch_4'"),
        (lambda s: s.write(data_batch_4=python2_pickle([1])), "data_batch_4' .*a dictionary"),
        (lambda s: s.write(data_batch_4=b"\x80"), "data_batch_4' is not as expected"),
        (lambda s: s.changed("data_batch_1", labels=None), "does not list labels"),
        (lambda s: s.changed("data_batch_1", labels=[3, 0]), "labels is not a number from 0 to 2"),
        (lambda s: s.changed("data_batch_1", labels=[-1, 0]), "labels is not a number from 0 to 2"),
        (lambda s: s.changed("data_batch_1", labels=[0.5, 0]), "is not a number from 0 to 2"),
        (lambda s: s.changed("data_batch_1", labels=[0]), r"not an array of shape \[1, 3072\]"),
        (lambda s: s.changed("data_batch_1", data=data(3)), r"not an array of shape \[2, 3072\]"),
        (lambda s: s.changed("data_batch_1", data=data(2, "i1")), "of b'i1', not of bytes"),
        (lambda s: s.changed("data_batch_1", data=None), r"not an array of shape \[2, 3072\]"),
        (lambda s: s.changed("test_batch", labels=[1, 0, 1, 1]), "class 'bird' has no test images"),
        (lambda s: s.changed("test_batch", labels=[], data=data(0)), "class 'airplane' has no tes"),
        (lambda s: write_tar(s.path, {FOLDER + "../../x": b""}), "leads out of the archive"),
        (lambda s: write_tar(s.path, {"/etc/x": b""}), "leads out of the archive"),
        (with_link, "is neither a plain file nor a folder"),
    ],
)
def test_a_wrong_archive_is_one_clear_sentence_and_prepares_nothing(
    small_cifar10: SmallCifar10,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[SmallCifar10], Path],
    reason: str,
) -> None:
    assert_refused(capsys, "cifar10", change(small_cifar10), tmp_path / "out", reason)


class Opens:
    """Pickled, it asks for a file to be made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return io.open, (str(self.path), "w")


@pytest.mark.parametrize("member", ["meta", "data_batch_3", "test_batch"])
def test_a_hostile_pickle_is_refused_and_not_run(
    small_cifar10: SmallCifar10, tmp_path: Path, member: str
) -> None:
    trace = tmp_path / "trace"
    small_cifar10.write(**{member: pickle.dumps({b"data": Opens(trace)}, 2)})
    with pytest.raises(UserError, match=rf"{member}' is not as expected \(it asks for .*open"):
        preparation.prepare_cifar10(small_cifar10.archives, tmp_path / "out")
    assert not trace.exists()
    assert_nothing_prepared(tmp_path / "out")


def test_a_truncated_archive_prepares_nothing(small_cifar10: SmallCifar10, tmp_path: Path) -> None:
    small_cifar10.path.write_bytes(small_cifar10.path.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{small_cifar10.path} is not a complete tar.gz archive"):
        preparation.prepare_cifar10(small_cifar10.archives, tmp_path / "out")
    assert_nothing_prepared(tmp_path / "out")


def test_an_oversized_archive_prepares_nothing(
    small_cifar10: SmallCifar10, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "LARGEST_ARCHIVE", 20_000)
    with pytest.raises(UserError, match="unpacks to more than 20000 bytes"):
        preparation.prepare_cifar10(small_cifar10.archives, tmp_path / "out")
    assert_nothing_prepared(tmp_path / "out")


def test_prepared_data_of_other_classes_or_damaged_are_not_taken_for_cifar10(
    small_cifar10: SmallCifar10, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = preparation.prepare_cifar10(small_cifar10.archives, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cifar10, "CLASSES", 10)
        with pytest.raises(UserError, match="are not CIFAR-10, its train images are of 3 classes"):
            tsar_jax.data.load_labelled("cifar10", tmp_path)
    (shard,) = folder.glob("cifar10_32-train.array_record*")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{shard.name} is not as it was prepared: run .*cifar10"):
        tsar_jax.data.load_labelled("cifar10", tmp_path)
