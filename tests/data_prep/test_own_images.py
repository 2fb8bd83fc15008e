"""A user's own images, from folders of any of them to where a data set is named."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from checks import assert_nothing_prepared, run_main
from PIL import Image
from test_as_people_have_them import LITTER, packed_zip, write_files

import tsar_jax.data
from tsar_jax.data.continual import make_stream
from tsar_jax.data.continual.registry import StreamSettings
from tsar_jax.errors import UserError, escaped

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = ("png", "jpg", "BMP", "gif", "tif", "webp", "ppm")


def picture(value: int, image_format: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    """A picture of one colour, 40 wide and 30 high."""
    data = io.BytesIO()
    colour = (value, value // 2, 0) if mode == "RGB" else value
    Image.new(mode, (40, 30), colour).save(data, image_format, **options)
    return data.getvalue()


def classes(**counts: int) -> dict[str, bytes]:
    return {
        f"{name}/{number:02}.{SUFFIXES[number % 7]}": picture(10 * number, FORMATS[number % 7])
        for name, count in counts.items()
        for number in range(count)
    }


def prepare(archives: Path, out: Path, *more: object) -> int:
    return run_main("images", "--archives", archives, "--name", "mine", "--out", out, *more)


def test_unequal_classes_are_split_and_it_is_said_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = classes(dogs=12, cats=7, birds=2) | {"cats/notes.txt": b"no image"} | LITTER
    assert prepare(write_files(tmp_path / "a", files), tmp_path) == 0
    said = capsys.readouterr().out
    assert f"mine is prepared in {tmp_path}/images_mine/1.0.0\n" in said
    assert "3 classes, 17 images for training and 4 for testing, 28x28, colour" in said
    assert "birds 1 + 1, cats 6 + 1, dogs 10 + 2 (training + testing)" in said
    complete = tsar_jax.data.load_labelled("mine", tmp_path)
    assert complete.train.names == ("birds", "cats", "dogs")
    assert np.bincount(complete.train.labels).tolist() == [1, 6, 10]
    assert np.bincount(complete.test.labels).tolist() == [1, 1, 2]
    assert np.abs(complete.test.images[:, 5, 5, 0] - [10.0, 40, 40, 90]).max() < 8
    grouped = tsar_jax.data.load("mine", tmp_path).splits
    assert grouped["train"].images.shape == (3, 1, 28, 28, 3)
    assert grouped["test"].images.shape == (3, 1, 28, 28, 3)


@pytest.mark.parametrize("how", ["folders", "zips", "one zip", "class zips"])
def test_folders_or_zips_of_train_and_test_will_do(tmp_path: Path, how: str) -> None:
    train, test = classes(a=3, b=4), classes(a=1, b=2)
    halves = {"train": train, "test": test}
    nested = {f"top/{half}/{name}": its for half in halves for name, its in halves[half].items()}
    archives = tmp_path / "a"
    if how == "folders":
        write_files(archives, nested)
    elif how == "zips":
        zips = {f"{half}.zip": packed_zip(its) for half, its in halves.items()}
        write_files(archives, zips)
    elif how == "one zip":
        archives.write_bytes(packed_zip(nested))
    else:
        write_files(
            archives, {"a.zip": packed_zip(classes(a=4)), "b.zip": packed_zip(classes(b=6))}
        )
    assert prepare(archives, tmp_path / "out", "--size", 32) == 0
    found = tsar_jax.data.load_labelled("mine", tmp_path / "out")
    assert found.train.images.shape == (7 + (how == "class zips"), 32, 32, 3)
    expected = [1, 1] if how == "class zips" else [1, 2]
    assert np.bincount(found.test.labels).tolist() == expected


def test_grey_images_stay_grey_and_others_are_made_upright_on_white(tmp_path: Path) -> None:
    grey = {f"{name}/{n}.png": picture(50, mode="L") for name in "ab" for n in range(2)}
    assert prepare(write_files(tmp_path / "grey", grey), tmp_path / "out") == 0
    assert tsar_jax.data.load_labelled("mine", tmp_path / "out").train.images.shape == (2, 28, 28)
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = Image.new("RGB", (40, 30))
    turned.paste((255, 0, 0), (0, 0, 20, 30))
    turned.save(data, "PNG", exif=exif)
    clear = io.BytesIO()
    Image.new("RGBA", (9, 9)).save(clear, "PNG")
    files = grey | {"a/0.png": data.getvalue(), "b/0.png": clear.getvalue()}
    assert prepare(write_files(tmp_path / "colour", files), tmp_path / "two") == 0
    images = tsar_jax.data.load_labelled("mine", tmp_path / "two").train.images
    assert images[0, :12, :, 0].min() == 255
    assert images[0, 16:].max() == 0
    assert images[1].min() == 255


@pytest.mark.parametrize("name", ["omniglot", "cifar10", "tinyimg", "Mine", "a-b", "../a", ""])
def test_names_of_other_data_sets_and_no_names_are_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = write_files(tmp_path / "a", classes(a=2, b=2))
    assert run_main("images", "--archives", archives, "--name", name, "--out", tmp_path / "o") == 2
    assert "--name" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "has 0 images in 0 classes: what is expected is a folder"),
        (classes(a=2), "has the image '00.png' in no class's folder|in 1 classes"),
        (classes(a=2, b=1), "class 'b' of .* has one image"),
        ({**classes(a=2, b=2), "x.png": b""}, "has the image 'x.png' in no class's folder"),
        ({**classes(a=2, b=2), "b/x.png": b"text"}, "its image 'b/x.png' is not a readable JPEG"),
        (
            {f"{half}/{k}": v for half in ("train", "test") for k, v in classes(a=2, b=2).items()}
            | {"test/c/1.png": picture(1)},
            "class 'c' of .* has images for training or for testing alone",
        ),
    ],
)
def test_what_cannot_be_says_what_was_found_and_expected(
    tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    (tmp_path / "a").mkdir()
    from data_prep.own_images import prepare_images

    with pytest.raises(UserError, match=reason):
        prepare_images(write_files(tmp_path / "a", files), "mine", 28, tmp_path / "out")
    assert_nothing_prepared(tmp_path / "out")


@pytest.mark.parametrize("name", [b"a\xff", b"a\nb", b"a\x1b[31m", b" ", b"a "])
def test_folders_whose_names_cannot_be_those_of_classes_are_refused(
    tmp_path: Path, name: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = write_files(tmp_path / "a", classes(b=2))
    folder = os.fsencode(archives) + b"/" + name
    os.mkdir(folder)
    for number in range(2):
        with open(folder + b"/%d.png" % number, "wb") as file:
            file.write(picture(number))
    assert prepare(archives, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert f"{archives} has a class's folder {escaped(repr(os.fsdecode(name)))}" in message
    assert message.endswith("rename the folder\n")
    assert message.count("\n") == 1
    assert_nothing_prepared(tmp_path / "out")


def test_another_size_under_the_same_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = write_files(tmp_path / "a", classes(a=2, b=2))
    assert prepare(archives, tmp_path) == 0
    assert prepare(archives, tmp_path, "--size", 64) == 2
    assert "at 28x28: choose another --name, or --overwrite" in capsys.readouterr().err
    assert prepare(archives, tmp_path, "--size", 64, "--overwrite") == 0


def test_they_are_usable_wherever_a_data_set_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments import plasticity_evaluate
    from tsar_jax.systems.episodic.targets import load_target, normaliser
    from tsar_jax.systems.episodic.transfer_arguments import TransferArguments

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="no target 'mine': choose from mini_imagenet"):
        TransferArguments(target="mine")
    with pytest.raises(UserError, match=r"unknown data set 'mine'.*tsar-jax prepare images"):
        tsar_jax.data.load_labelled("mine")
    assert prepare(write_files(tmp_path / "a", classes(a=6, b=9)), tmp_path) == 0
    arguments = TransferArguments(target="mine")
    images, normalise = load_target(arguments.target, "unit")
    assert images.shape == (2, 6, 28, 28, 3)
    assert normalise(images[0]).shape == (6, 28, 28, 3)
    assert normalise is normaliser("mine", "unit")
    with pytest.raises(UserError, match="mine is in colour"):
        plasticity_evaluate.load_target(plasticity_evaluate.Arguments(target="mine"))
    stream = make_stream("seq-mine", tsar_jax.data.load_labelled("mine"), StreamSettings(batch=2))
    assert stream.steps > 0
