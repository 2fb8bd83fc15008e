"""mini-ImageNet, from the user's files to what `load` gives."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checks import assert_nothing_prepared, assert_same, run_main
from PIL import Image
from small_mini_imagenet import SmallMiniImagenet, csv, jpeg, resized

import data_prep.mini_imagenet as preparation
import tsar_jax.data
from tsar_jax.data import mini_imagenet
from tsar_jax.errors import UserError

GREY = np.full((84, 84, 3), 100, np.uint8)


@pytest.mark.parametrize("root", ["", "mini-imagenet/", "a/b/"])
def test_what_is_prepared_from_a_zip_is_what_load_gives(
    small_mini: SmallMiniImagenet, tmp_path: Path, root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small_mini.write_zip(root)
    command = ("mini-imagenet", "--archives", small_mini.archives, "--out", tmp_path)
    assert run_main(*command) == 0
    folder = tmp_path / "mini_imagenet_28" / "1.0.0"
    other = tmp_path / "mini_imagenet_32" / "1.0.0"
    message = f"mini-ImageNet is prepared in {folder}\nmini-ImageNet is prepared in {other}\n"
    assert capsys.readouterr().out == message
    dataset = tsar_jax.data.load("mini_imagenet", tmp_path)
    assert (dataset.name, dataset.source) == ("mini_imagenet", f"prepared: {folder}")
    assert dataset.splits["train"].images.shape == (3, 4, 28, 28, 3)
    assert_same(dataset.splits, small_mini.splits)


def test_all_classes_at_32x32_are_pooled_and_cut(
    small_mini: SmallMiniImagenet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation.prepare_mini_imagenet(small_mini.write_folder(), tmp_path)
    with pytest.raises(UserError, match=r"has 4 images of every class in split 'train', too few"):
        tsar_jax.data.load_labelled("mini_imagenet", tmp_path)
    monkeypatch.setattr(mini_imagenet, "LABELLED_TEST_EVERY", 4)
    found = tsar_jax.data.load_labelled("mini_imagenet", tmp_path)
    folder = tmp_path / "mini_imagenet_32" / "1.0.0"
    assert found.source == (
        "a subset: 18 of 50000 training and 6 of 10000 test images, "
        f"prepared: {folder}; one of 4 images of a class is for testing"
    )
    # The first class in val.csv is the fourth of all, and of its images the last is for testing.
    expected = resized(small_mini.files["images/n000000036.jpg"], 32)
    np.testing.assert_array_equal(found.test.images[3], expected, strict=True)
    np.testing.assert_array_equal(found.test.labels, np.arange(6))
    np.testing.assert_array_equal(found.train.labels, np.repeat(np.arange(6), 3))


def test_a_folder_does_as_well(small_mini: SmallMiniImagenet, tmp_path: Path) -> None:
    preparation.prepare_mini_imagenet(small_mini.write_folder(), tmp_path)
    assert_same(tsar_jax.data.load("mini_imagenet", tmp_path).splits, small_mini.splits)


def test_the_published_classes_are_asked_for() -> None:
    assert mini_imagenet.CLASSES == {"train": 64, "val": 16, "test": 20}


def test_grey_images_become_colour(small_mini: SmallMiniImagenet, tmp_path: Path) -> None:
    small_mini.files["images/n000000009.jpg"] = jpeg(GREY, "L")
    small_mini.write_zip()
    preparation.prepare_mini_imagenet(small_mini.archives, tmp_path)
    image = tsar_jax.data.load("mini_imagenet", tmp_path).splits["train"].images[0, 0]
    np.testing.assert_array_equal(image, np.full((28, 28, 3), 100))


def test_a_png_named_as_jpeg_is_read(small_mini: SmallMiniImagenet, tmp_path: Path) -> None:
    data = jpeg(np.arange(84 * 84 * 3, dtype=np.uint8).reshape(84, 84, 3), image_format="PNG")
    small_mini.files["images/n000000009.jpg"] = data
    preparation.prepare_mini_imagenet(small_mini.write_folder(), tmp_path)
    image = tsar_jax.data.load("mini_imagenet", tmp_path).splits["train"].images[0, 0]
    np.testing.assert_array_equal(image, resized(data))


def test_images_that_no_csv_file_lists_are_left_out(
    small_mini: SmallMiniImagenet, tmp_path: Path
) -> None:
    small_mini.files["images/unlisted.jpg"] = b"not even an image"
    small_mini.write_zip()
    preparation.prepare_mini_imagenet(small_mini.archives, tmp_path)
    assert_same(tsar_jax.data.load("mini_imagenet", tmp_path).splits, small_mini.splits)


def rows(files: dict[str, bytes], split: str) -> list[tuple[str, ...]]:
    return [tuple(row.split(",")) for row in files[f"{split}.csv"].decode().splitlines()[1:]]


def with_first(files: dict[str, bytes], split: str, *row: str) -> dict[str, bytes]:
    """The first row of a split's csv file is another."""
    return {**files, f"{split}.csv": csv(row, *rows(files, split)[1:])}


def without(files: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name not in names}


def fewer(files: dict[str, bytes], left: int) -> dict[str, bytes]:
    """So many images of each class."""
    kept = {}
    for split in mini_imagenet.CLASSES:
        classes = sorted({label for _, label in rows(files, split)})
        listed = {c: [row for row in rows(files, split) if row[1] == c][:left] for c in classes}
        kept[f"{split}.csv"] = csv(*(row for name in classes for row in listed[name]))
    return {**files, **kept}


def png_of(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


FIRST = "n000000009.jpg"  # an image of train.csv
Change = Callable[[dict[str, bytes]], dict[str, bytes]]
BAD_FILES: list[tuple[Change, str]] = [
    (lambda f: without(f, "val.csv"), "has no val.csv"),
    (lambda f: {**f, "val.csv": b"\xff"}, "val.csv of .* is not a csv file"),
    (lambda f: {**f, "val.csv": b'filename,label\n"a'}, "val.csv of .* is not a csv file"),
    (lambda f: {**f, "val.csv": b""}, "val.csv of .* does not begin with filename,label"),
    (lambda f: {**f, "val.csv": csv(header=("label", "filename"))}, "does not begin with filena"),
    (lambda f: {**f, "val.csv": csv()}, "val.csv of .* lists 0 classes, not 1"),
    (lambda f: with_first(f, "test", "a.jpg"), "row 2 of test.csv of .* is not a plain file name"),
    (lambda f: with_first(f, "test", "../a.jpg", "c"), r"row 2 of test.csv of .*'\.\./a\.jpg'"),
    (lambda f: with_first(f, "test", "/etc/passwd", "c"), "row 2 of test.csv of .*/etc/passwd"),
    (lambda f: with_first(f, "test", "a\0.jpg", "c"), "row 2 of test.csv of "),
    (lambda f: with_first(f, "test", "a.jpg", ""), "row 2 of test.csv of "),
    (lambda f: with_first(f, "test", FIRST, "n99999999"), "lists 3 classes, not 2"),
    (lambda f: {**f, "val.csv": csv(*rows(f, "train")[::3])}, "'n00000002' in both train.csv and"),
    (lambda f: with_first(f, "val", "gone.jpg", "n00000003"), "no images/gone.jpg, which val.csv"),
    (lambda f: with_first(f, "val", FIRST, "n00000003"), f"val.csv of .* lists '{FIRST}', which"),
    (lambda f: fewer(f, 3), "lists 3 images of class 'n00000000'.*same even number"),
    (lambda f: {**fewer(f, 2), "val.csv": f["val.csv"]}, "val.csv of .* lists 4 images of class"),
    (lambda f: without(f, f"images/{FIRST}"), f"has no images/{FIRST}"),
    (lambda f: {**f, f"images/{FIRST}": b"no image"}, f"{FIRST} of .* is not a readable JPEG or"),
    (lambda f: {**f, f"images/{FIRST}": f[f"images/{FIRST}"][:500]}, "is not a readable JPEG or P"),
    (lambda f: {**f, f"images/{FIRST}": jpeg(GREY, "P", "GIF")}, "is not a readable JPEG or PNG"),
    (lambda f: {**f, f"images/{FIRST}": png_of(6000, 6000)}, "is 6000x6000, more than 33554432 p"),
]


@pytest.mark.parametrize("how", ["zip", "folder"])
@pytest.mark.parametrize(("change", "reason"), BAD_FILES)
def test_wrong_files_are_one_clear_sentence_and_prepare_nothing(
    small_mini: SmallMiniImagenet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    reason: str,
    how: str,
) -> None:
    changed = SmallMiniImagenet(small_mini.archives, change(small_mini.files), {})
    path = changed.write_zip() if how == "zip" else changed.write_folder()
    out = tmp_path / "out"
    assert run_main("mini-imagenet", "--archives", changed.archives, "--out", out) == 2
    message = capsys.readouterr().err.strip()
    assert re.search(reason, message)
    assert str(path) in message
    assert ": " in message
    assert "\n" not in message
    assert_nothing_prepared(out)


def test_fewer_images_of_every_class_will_do(small_mini: SmallMiniImagenet, tmp_path: Path) -> None:
    changed = SmallMiniImagenet(small_mini.archives, fewer(small_mini.files, 2), {})
    preparation.prepare_mini_imagenet(changed.write_folder(), tmp_path)
    splits = tsar_jax.data.load("mini_imagenet", tmp_path).splits
    for split, images in small_mini.splits.items():
        np.testing.assert_array_equal(splits[split].images, images.images[:, :2])


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (["a/train.csv", "b/train.csv"], "has 2 files named train.csv, not one"),
        (["images/a.jpg"], "has 0 files named train.csv, not one"),
        (["train.csv", "../evil"], "leads out of the archive"),
    ],
)
def test_a_zip_without_the_layout_is_refused(
    small_mini: SmallMiniImagenet, tmp_path: Path, members: list[str], reason: str
) -> None:
    SmallMiniImagenet(small_mini.archives, dict.fromkeys(members, b""), {}).write_zip("")
    with pytest.raises(UserError, match=reason):
        preparation.prepare_mini_imagenet(small_mini.archives, tmp_path / "out")


@pytest.mark.parametrize("how", ["zip", "folder"])
def test_an_oversized_file_is_refused(
    small_mini: SmallMiniImagenet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(preparation, "LARGEST_FILE", 50_000)
    small_mini.files[f"images/{FIRST}"] += bytes(50_000)
    small_mini.write_zip() if how == "zip" else small_mini.write_folder()
    with pytest.raises(UserError, match=rf"{FIRST}.* holds \D*\d+ bytes"):
        preparation.prepare_mini_imagenet(small_mini.archives, tmp_path / "out")


@pytest.mark.parametrize("arguments", [(), ("--archives", "{empty}"), ("--archives", "{missing}")])
def test_without_files_the_error_says_what_to_get_and_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "missing": tmp_path / "missing"}
    named = [argument.format(**places) for argument in arguments]
    out = tmp_path / "out"
    assert run_main("mini-imagenet", *named, "--out", out) == 2
    message = capsys.readouterr().err
    assert "github.com/twitter-research/meta-learning-lstm" in message
    assert "image-net.org" in message
    assert f"`tsar-jax prepare mini-imagenet --archives DIR --out {out}`" in message
    assert_nothing_prepared(out)


def test_prepared_data_of_other_classes_are_not_taken_for_mini_imagenet(
    small_mini: SmallMiniImagenet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation.prepare_mini_imagenet(small_mini.write_folder(), tmp_path)
    monkeypatch.setattr(mini_imagenet, "CLASSES", {"train": 64, "val": 16, "test": 20})
    with pytest.raises(UserError, match=r"are not mini-ImageNet, its train images .*\[64, 4, 28"):
        tsar_jax.data.load("mini_imagenet", tmp_path)
