"""Tiny ImageNet, from its archive to what `load_labelled` gives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checks import assert_nothing_prepared, assert_refused, assert_same_labelled, run_main
from small_mini_imagenet import jpeg
from small_tiny_imagenet import SmallTinyImagenet
from tensorflow_datasets.core import shuffle

import data_prep.tiny_imagenet as preparation
import tsar_jax.data
from data_prep.archives import RemoteArchive
from tsar_jax.data import tiny_imagenet
from tsar_jax.data.prepared import file_digest
from tsar_jax.errors import UserError

GREY = np.full((64, 64, 3), 100, np.uint8)
FIRST = "train/n00000003/images/n00000003_0.JPEG"  # the only one of its class
VALIDATION = "val/images/val_0.JPEG"  # the only one of n00000007
ANNOTATIONS = "val/val_annotations.txt"


def test_what_is_prepared_is_what_load_labelled_gives(
    small_tiny: SmallTinyImagenet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ("tiny-imagenet", "--archives", small_tiny.archives, "--out", tmp_path)
    assert run_main(*command) == 0
    folder = tmp_path / "tiny_imagenet_64" / "1.0.0"
    assert capsys.readouterr().out == f"Tiny ImageNet is prepared in {folder}\n"
    dataset = tsar_jax.data.load_labelled("tiny_imagenet", tmp_path)
    subset = "a subset: 6 of 100000 training and 4 of 10000 test images"
    assert (dataset.name, dataset.source) == ("tiny_imagenet", f"{subset}, prepared: {folder}")
    assert dataset.train.names == ("n00000003", "n00000005", "n00000007")
    np.testing.assert_array_equal(dataset.train.labels, [0, 1, 1, 2, 2, 2])
    assert_same_labelled(dataset, small_tiny.splits)
    monkeypatch.setattr(tiny_imagenet, "IMAGES", {"train": 6, "test": 4})
    assert tsar_jax.data.load_labelled("tiny_imagenet", tmp_path).source == f"prepared: {folder}"
    assert run_main(*command) == 0
    assert "already prepared" in capsys.readouterr().out


def test_the_published_sizes_are_asked_for() -> None:
    assert tiny_imagenet.CLASSES == 200
    assert tiny_imagenet.IMAGES == {"train": 100_000, "test": 10_000}


def test_grey_images_become_colour(small_tiny: SmallTinyImagenet, tmp_path: Path) -> None:
    small_tiny.write({**small_tiny.files, FIRST: jpeg(GREY, "L")})
    preparation.prepare_tiny_imagenet(small_tiny.archives, tmp_path)
    image = tsar_jax.data.load_labelled("tiny_imagenet", tmp_path).train.images[0]
    np.testing.assert_array_equal(image, GREY, strict=True)


def test_the_archive_is_downloaded_where_no_folder_is_named(
    small_tiny: SmallTinyImagenet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_tiny.path
    remote = RemoteArchive(path.as_uri(), path.stat().st_size, file_digest(path))
    monkeypatch.setattr(preparation, "REMOTE", remote)
    assert run_main("tiny-imagenet", "--out", tmp_path / "out") == 0
    found = tsar_jax.data.load_labelled("tiny_imagenet", tmp_path / "out")
    assert_same_labelled(found, small_tiny.splits)


def test_a_split_of_any_size_is_written_without_tensorflow(
    small_tiny: SmallTinyImagenet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What tensorflow-datasets sorts on the disk, by TensorFlow: more than 1 GB, as of 100,000
    # images of 64x64.
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1000)
    preparation.prepare_tiny_imagenet(small_tiny.archives, tmp_path)
    assert shuffle.MAX_MEM_BUFFER_SIZE == 1000
    found = tsar_jax.data.load_labelled("tiny_imagenet", tmp_path)
    assert_same_labelled(found, small_tiny.splits)


Files = dict[str, bytes]


def without(files: Files, *names: str) -> Files:
    return {name: data for name, data in files.items() if name not in names}


def replaced(files: Files, name: str, old: bytes, new: bytes) -> Files:
    assert old in files[name]
    return {**files, name: files[name].replace(old, new, 1)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: without(f, "wnids.txt"), "has no member 'tiny-imagenet-200/wnids.txt'"),
        (lambda f: {**f, "wnids.txt": b"n00000003\n"}, "does not list 3 different classes"),
        (lambda f: {**f, "wnids.txt": b"n00000003\n" * 3}, "does not list 3 different classes"),
        (lambda f: {**f, "wnids.txt": b"../evil\n\n\n"}, "'../evil' is not a WordNet number"),
        (lambda f: {**f, "wnids.txt": b"\xff"}, "is not a WordNet number"),
        (
            lambda f: replaced(f, "wnids.txt", b"3\n", b"4\n"),
            "does not list its class, 'n00000003'",
        ),
        (lambda f: without(f, FIRST), "class 'n00000003' of .* has no train images"),
        (
            lambda f: replaced(f, ANNOTATIONS, b"n00000007", b"n00000003"),
            "class 'n00000007' of .* has no test images",
        ),
        (
            lambda f: replaced(f, ANNOTATIONS, b"n00000007", b"n99999999"),
            f"{VALIDATION}' is not as .*does not list its class, 'n99999999'",
        ),
        (lambda f: without(f, ANNOTATIONS), f"has no member 'tiny-imagenet-200/{ANNOTATIONS}'"),
        (lambda f: {**f, ANNOTATIONS: b"val_0.JPEG\n"}, "line 1 has no class, 'val_0.JPEG'"),
        (lambda f: {**f, ANNOTATIONS: 2 * f[ANNOTATIONS]}, "line 5 names a file again"),
        (lambda f: {**f, ANNOTATIONS: b""}, "val_annotations.txt does not give its class"),
        (lambda f: without(f, VALIDATION), f"gives a class to .*{VALIDATION}', not there"),
        (lambda f: {**f, "val/images/more.JPEG": b""}, "txt does not give its class"),
        (lambda f: {**f, "train/n00000003/a/x.JPEG": b""}, "x.JPEG' .*it is not at .*<class>/im"),
        (lambda f: {**f, "train/n00000003/images/x.png": b""}, "x.png' .*it is not at"),
        (lambda f: {**f, FIRST: b"no image"}, f"{FIRST}' is not a readable JPEG image"),
        (lambda f: {**f, FIRST: f[FIRST][:500]}, f"{FIRST}' is not a readable JPEG image"),
        (lambda f: {**f, FIRST: jpeg(GREY, "RGB", "PNG")}, "is not a readable JPEG image"),
        (lambda f: {**f, FIRST: jpeg(GREY[:63])}, "is 64x63, not 64x64"),
        (lambda f: {**f, FIRST: bytes(1 << 23)}, "it holds 8388608 bytes"),
        (lambda f: {**f, "../../x": b""}, "leads out of the archive"),
        (lambda f: {}, "has no member 'tiny-imagenet-200/wnids.txt'"),
    ],
)
def test_a_wrong_archive_is_one_clear_sentence_and_prepares_nothing(
    small_tiny: SmallTinyImagenet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Files], Files],
    reason: str,
) -> None:
    assert_refused(
        capsys,
        "tiny-imagenet",
        small_tiny.write(change(small_tiny.files)),
        tmp_path / "out",
        reason,
    )


def test_a_truncated_archive_prepares_nothing(
    small_tiny: SmallTinyImagenet, tmp_path: Path
) -> None:
    small_tiny.path.write_bytes(small_tiny.path.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{small_tiny.path} is not a complete zip archive"):
        preparation.prepare_tiny_imagenet(small_tiny.archives, tmp_path / "out")
    assert_nothing_prepared(tmp_path / "out")


def test_an_archive_that_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny-imagenet-200.zip is not in .*from https://cs231n"):
        preparation.prepare_tiny_imagenet(tmp_path, tmp_path / "out")


def test_prepared_data_of_other_classes_are_not_taken_for_tiny_imagenet(
    small_tiny: SmallTinyImagenet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation.prepare_tiny_imagenet(small_tiny.archives, tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="are not Tiny ImageNet, its train images are of 3 classes"):
        tsar_jax.data.load_labelled("tiny_imagenet", tmp_path)
