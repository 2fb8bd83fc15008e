"""MNIST, from its files to what `load` gives."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from checks import assert_nothing_prepared, assert_same, run_main
from small_idx import SmallSet, TfdsBuilder, idx

import data_prep.mnist as preparation
import tsar_jax.data
from data_prep.archives import RemoteArchive
from tsar_jax.data import mnist
from tsar_jax.data.prepared import file_digest
from tsar_jax.errors import UserError


class Mnist(TfdsBuilder, skip_registration=True):  # type: ignore[call-arg]
    """What tensorflow-datasets calls mnist."""

    VERSION = tfds.core.Version("3.0.1")
    name = "mnist"


def test_what_is_prepared_is_what_load_gives(
    small_mnist: SmallSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("mnist", "--archives", small_mnist.write(), "--out", tmp_path)
    assert run_main(*command) == 0
    folder = tmp_path / "mnist28" / "2.0.0"
    assert capsys.readouterr().out == f"MNIST is prepared in {folder}\n"
    dataset = tsar_jax.data.load("mnist", tmp_path)
    assert (dataset.name, dataset.source) == ("mnist", f"prepared: {folder}")
    assert dataset.splits["train"].images.shape == (3, 3, 28, 28)
    assert_same(dataset.splits, small_mnist.splits)
    complete = tsar_jax.data.load_labelled("mnist", tmp_path)
    assert (complete.name, complete.source) == (dataset.name, dataset.source)
    for split, found in {"train": complete.train, "test": complete.test}.items():
        np.testing.assert_array_equal(found.images, small_mnist.images[split], strict=True)
        np.testing.assert_array_equal(found.labels, small_mnist.labels[split].astype(np.int32))
        assert found.labels.dtype == np.int32
        assert found.names == mnist.NAMES
    assert run_main(*command) == 0
    assert "already prepared" in capsys.readouterr().out
    assert run_main(*command, "--overwrite") == 0


def test_the_published_sizes_are_asked_for() -> None:
    assert mnist.IMAGES == {"train": 60_000, "test": 10_000}
    assert mnist.IMAGES_PER_CLASS == {"train": 5421, "test": 892}


def test_unpacked_files_will_do(small_mnist: SmallSet, tmp_path: Path) -> None:
    preparation.prepare_mnist(small_mnist.write(compressed=False), None, tmp_path)
    assert_same(tsar_jax.data.load("mnist", tmp_path).splits, small_mnist.splits)


def test_the_files_are_downloaded_where_no_folder_is_named(
    small_mnist: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_mnist.write()
    paths = {
        split: [folder / remote.filename for remote in remotes]
        for split, remotes in preparation.REMOTE.items()
    }
    remotes = {
        split: tuple(RemoteArchive(p.as_uri(), p.stat().st_size, file_digest(p)) for p in both)
        for split, both in paths.items()
    }
    monkeypatch.setattr(preparation, "REMOTE", remotes)
    assert run_main("mnist", "--out", tmp_path / "out") == 0
    assert_same(tsar_jax.data.load("mnist", tmp_path / "out").splits, small_mnist.splits)


def test_what_tensorflow_datasets_prepared_is_read_too(
    small_mnist: SmallSet, tmp_path: Path
) -> None:
    Mnist(small_mnist, data_dir=tmp_path, file_format="array_record").download_and_prepare()
    assert run_main("mnist", "--tfds", tmp_path, "--out", tmp_path) == 0
    for split, found in tsar_jax.data.load("mnist", tmp_path).splits.items():
        assert found.images.shape == small_mnist.splits[split].images.shape
        # tensorflow-datasets shuffles what it prepares, so these need not be each digit's first.
        for label, images in enumerate(found.images):
            its = small_mnist.images[split][small_mnist.labels[split] == label]
            assert {image.tobytes() for image in images} <= {image.tobytes() for image in its}
            assert len({image.tobytes() for image in images}) == len(images)


Change = Callable[[SmallSet], dict[str, bytes | None]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: {"t10k_images": idx(s.images["test"])[:-1]}, "ends after 4703 of 4704 values"),
        (lambda s: {"t10k_images": idx(s.images["test"], 9)}, "magic number is 0x00000903"),
        (lambda s: {"t10k_labels": idx(s.labels["test"][1:])}, "has 5 labels for the 6 images"),
        (lambda s: {"t10k_labels": idx(s.labels["test"] + 1)}, "a label is 3, not 0 to 2"),
        (lambda s: {"t10k_labels": idx(np.array([0, 1, 1, 1, 2, 2]))}, "1 images of class '0', n"),
        (
            lambda s: {f"train_{k}": idx(v["train"][1:]) for k, v in arrays(s).items()},
            "not of MNIST, it has 9 images, not 10",
        ),
        (lambda s: {"train_images": None}, "has no file train-images-idx3-ubyte.gz, but 3 files"),
    ],
)
def test_wrong_files_are_one_clear_sentence_and_prepare_nothing(
    small_mnist: SmallSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    reason: str,
) -> None:
    path = small_mnist.write(**change(small_mnist))
    out = tmp_path / "out"
    assert run_main("mnist", "--archives", path, "--out", out) == 2
    message = capsys.readouterr().err.strip()
    assert re.search(reason, message)
    assert str(path) in message
    assert "\n" not in message
    assert_nothing_prepared(out)


def arrays(small: SmallSet) -> dict[str, dict[str, np.ndarray]]:
    return {"images": small.images, "labels": small.labels}


def test_prepared_data_of_other_sizes_are_not_taken_for_mnist(
    small_mnist: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation.prepare_mnist(small_mnist.write(), None, tmp_path)
    monkeypatch.setattr(mnist, "NAMES", ("0", "1", "3"))
    with pytest.raises(UserError, match="are not MNIST, its classes are not the digits"):
        tsar_jax.data.load("mnist", tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="are not MNIST, its train images are of 3 classes, not 10"):
        tsar_jax.data.load_labelled("mnist", tmp_path)
