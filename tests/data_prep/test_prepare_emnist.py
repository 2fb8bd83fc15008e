"""EMNIST, from its archive to what `load` gives."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from checks import assert_nothing_prepared, assert_same, run_main
from small_idx import SmallSet, TfdsBuilder, idx
from small_omniglot import write_zip

import data_prep.emnist as preparation
import tsar_jax.data
from data_prep import building
from data_prep.archives import RemoteArchive
from tsar_jax.data import emnist
from tsar_jax.data.packaged_file import digests
from tsar_jax.data.prepared import file_digest
from tsar_jax.errors import UserError


class Emnist(TfdsBuilder, skip_registration=True):  # type: ignore[call-arg]
    """What tensorflow-datasets calls emnist/balanced."""

    VERSION = tfds.core.Version("3.1.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="balanced"),)
    name = "emnist"


class ColourEmnist(Emnist, skip_registration=True):  # type: ignore[call-arg]
    """The same, in colour."""

    name = "emnist"
    channels = 3


def test_what_is_prepared_is_what_load_gives(
    small_emnist: SmallSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_emnist.write_zip()
    command = ("emnist", "--archives", small_emnist.archives, "--out", tmp_path)
    assert run_main(*command) == 0
    folder = tmp_path / "emnist_balanced28" / "1.0.0"
    assert capsys.readouterr().out == f"EMNIST Balanced is prepared in {folder}\n"
    dataset = tsar_jax.data.load("emnist", tmp_path)
    assert (dataset.name, dataset.source) == ("emnist", f"prepared: {folder}")
    assert dataset.splits["train"].images.shape == (3, 4, 28, 28)
    assert_same(dataset.splits, small_emnist.splits)
    assert run_main(*command) == 0
    assert "already prepared" in capsys.readouterr().out
    assert run_main(*command, "--overwrite") == 0


def test_the_published_sizes_are_asked_for() -> None:
    assert len(emnist.NAMES) == 47
    assert emnist.IMAGES_PER_CLASS == {"train": 2400, "test": 400}


@pytest.mark.parametrize("compressed", [True, False])
def test_the_files_need_no_archive(
    small_emnist: SmallSet, tmp_path: Path, compressed: bool
) -> None:
    small_emnist.write(compressed=compressed)
    preparation.prepare_emnist(small_emnist.archives, None, tmp_path)
    assert_same(tsar_jax.data.load("emnist", tmp_path).splits, small_emnist.splits)


def test_the_archive_is_downloaded_where_no_folder_is_named(
    small_emnist: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_emnist.write_zip()
    remote = RemoteArchive(path.as_uri(), path.stat().st_size, file_digest(path))
    monkeypatch.setattr(preparation, "REMOTE", remote)
    assert run_main("emnist", "--out", tmp_path / "out") == 0
    assert_same(tsar_jax.data.load("emnist", tmp_path / "out").splits, small_emnist.splits)


def test_what_tensorflow_datasets_prepared_is_read_too(
    small_emnist: SmallSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Emnist(small_emnist, data_dir=tmp_path, file_format="array_record").download_and_prepare()
    capfd.readouterr()
    assert run_main("emnist", "--tfds", tmp_path, "--out", tmp_path) == 0
    assert "OpenCV" not in capfd.readouterr().err
    found = tsar_jax.data.load("emnist", tmp_path)
    assert found.source.startswith("prepared")
    for split, expected in small_emnist.splits.items():
        # tensorflow-datasets shuffles what it prepares.
        for mine, its in zip(found.splits[split].images, expected.images, strict=True):
            assert sorted(map(np.ndarray.tobytes, mine)) == sorted(map(np.ndarray.tobytes, its))


def test_what_tensorflow_datasets_has_not_prepared_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no emnist/balanced in array_record.*file_format="):
        preparation.prepare_emnist(None, tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "none").exists()
    assert_nothing_prepared(tmp_path / "out")


def test_what_tensorflow_datasets_prepared_otherwise_is_refused(
    small_emnist: SmallSet, tmp_path: Path
) -> None:
    ColourEmnist(small_emnist, data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(UserError, match=r"in .* is 28x28 and RGB, not 28x28 and L, grey: take"):
        preparation.prepare_emnist(None, tmp_path, tmp_path / "out")
    (shard,) = tmp_path.glob("emnist/balanced/3.1.0/emnist-train.array_record*")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"emnist/balanced in {tmp_path} cannot be read \("):
        preparation.prepare_emnist(None, tmp_path, tmp_path / "out")


def test_only_one_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("emnist", "mnist"):
        assert run_main(name, "--archives", tmp_path, "--tfds", tmp_path) == 2
        assert "leave out one of them" in capsys.readouterr().err


IMAGES, LABELS = "emnist_balanced_train_images", "emnist_balanced_train_labels"
MAPPING = "emnist_balanced_mapping"
Change = Callable[[SmallSet], dict[str, bytes | None]]


def with_labels(small: SmallSet, *changed: int) -> dict[str, bytes | None]:
    return {LABELS: idx(np.array([*changed, *small.labels["train"][len(changed) :]]))}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: {IMAGES: idx(s.images["train"])[:-1]}, "ends after 9407 of 9408 values"),
        (lambda s: {IMAGES: idx(s.labels["train"])}, "it ends within its header|magic number"),
        (lambda s: {IMAGES: idx(s.images["train"][:, 1:])}, "its images are 27x28, not 28x28"),
        (lambda s: {LABELS: idx(s.labels["train"][1:])}, "has 11 labels for the 12 images of"),
        (lambda s: with_labels(s, 3), "a label is 3, not 0 to 2"),
        (lambda s: with_labels(s, *[0] * 12), "has 0 images of class 'A', not 4"),
        (
            lambda s: {IMAGES: idx(s.images["train"][1:]), LABELS: idx(s.labels["train"][1:])},
            "not of EMNIST Balanced, it has 11 images, not 12",
        ),
        (lambda s: {MAPPING: b"0 48\n1 65\n2 99\n"}, "does not map the labels 0 to 2 to the codes"),
        (lambda s: {MAPPING: b"\xff"}, "does not map"),
        (lambda s: {MAPPING: None}, "has no .*emnist-balanced-mapping.txt"),
        (lambda s: {LABELS: None}, "has no .*emnist-balanced-train-labels-idx1-ubyte.gz"),
    ],
)
def test_wrong_files_are_one_clear_sentence_and_prepare_nothing(
    small_emnist: SmallSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    reason: str,
    zipped: bool,
) -> None:
    changed = change(small_emnist)
    path = (small_emnist.write_zip if zipped else small_emnist.write)(**changed)
    out = tmp_path / "out"
    assert run_main("emnist", "--archives", small_emnist.archives, "--out", out) == 2
    message = capsys.readouterr().err.strip()
    assert re.search(reason, message)
    assert str(path) in message
    assert "\n" not in message
    assert_nothing_prepared(out)


def test_a_hostile_or_truncated_archive_prepares_nothing(
    small_emnist: SmallSet, tmp_path: Path
) -> None:
    path = write_zip(small_emnist.archives / "gzip.zip", {"gzip/../../x": b""})
    with pytest.raises(UserError, match="leads out of the archive"):
        preparation.prepare_emnist(small_emnist.archives, None, tmp_path / "out")
    path = small_emnist.write_zip()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{path} is not a complete zip archive"):
        preparation.prepare_emnist(small_emnist.archives, None, tmp_path / "out")
    assert_nothing_prepared(tmp_path / "out")


def test_a_folder_without_the_files_says_what_to_get_from_whom(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"has no file emnist-.*gzip\.zip of https://www\.nist\.gov"
    ):
        preparation.prepare_emnist(tmp_path, None, tmp_path / "out")


def test_an_interrupt_prepares_nothing_and_a_failed_overwrite_keeps_what_was_there(
    small_emnist: SmallSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    small_emnist.write_zip()
    command = ("emnist", "--archives", small_emnist.archives, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(building, "write_record", interrupt)
        assert run_main(*command) == 130
        assert_nothing_prepared(tmp_path / "out")
    assert run_main(*command) == 0
    small_emnist.write_zip(**{MAPPING: None})
    assert run_main(*command, "--overwrite") == 2
    assert_same(tsar_jax.data.load("emnist", tmp_path / "out").splits, small_emnist.splits)


def test_prepared_data_of_other_classes_are_not_taken_for_emnist(
    small_emnist: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_emnist.write_zip()
    preparation.prepare_emnist(small_emnist.archives, None, tmp_path)
    monkeypatch.setattr(emnist, "NAMES", ("0", "A", "B"))
    with pytest.raises(UserError, match="are not EMNIST Balanced, its classes are not 0AB"):
        tsar_jax.data.load("emnist", tmp_path)


def test_the_packaged_file_is_rebuilt_the_same_and_of_no_other_images(
    small_emnist: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, data in small_emnist.files.items():
        bymerge = name.replace("balanced", "bymerge").replace("-train-", "-test4-")
        (small_emnist.archives / bymerge).write_bytes(data)
    splits = {"train": small_emnist.splits["train"]}
    monkeypatch.setattr(emnist, "PACKAGED_IMAGES_PER_CLASS", {"train": 4})
    with pytest.raises(UserError, match="do not have the published digests"):
        preparation.package_emnist(small_emnist.archives, tmp_path / "other.npz")
    assert not (tmp_path / "other.npz").exists()
    monkeypatch.setattr(emnist, "PACKAGED_SHA256", digests(splits["train"]))
    first = preparation.package_emnist(small_emnist.archives, tmp_path / "first.npz")
    assert_same(emnist.read_packaged(first), splits)
    second = preparation.package_emnist(small_emnist.archives, tmp_path / "second.npz")
    assert first.read_bytes() == second.read_bytes()
