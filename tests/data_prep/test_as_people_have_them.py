"""Archives as people have them: packed, named and sorted otherwise, they give the same data."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checks import assert_same, assert_same_labelled, run_main
from PIL import Image
from small_cifar10 import FOLDER, SmallCifar10
from small_cifar100 import python2_pickle
from small_idx import SmallSet
from small_mini_imagenet import SmallMiniImagenet
from small_omniglot import SmallOmniglot
from small_tiny_imagenet import SmallTinyImagenet

import tsar_jax.data
from data_prep.images import open_image
from data_prep.mini_imagenet import prepare_mini_imagenet
from data_prep.sources import open_source
from tsar_jax.errors import UserError

LITTER = {"._a": b"x", "__MACOSX/b": b"x", "c/.DS_Store": b"x", "c/Thumbs.db": b"x", "._c/._a": b""}

Files = dict[str, bytes]


def write_files(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def packed_zip(files: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def packed_tar(files: Files) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


PACKED: dict[str, Callable[[Files], bytes]] = {
    "zip": packed_zip,
    "windows": lambda files: packed_zip({k.replace("/", "\\"): v for k, v in files.items()}),
    "tar": packed_tar,
    "dots": lambda files: packed_tar({"./" + name: data for name, data in files.items()}),
    "gz": lambda files: gzip.compress(packed_tar(files)),
    "bz2": lambda files: bz2.compress(packed_tar(files)),
    "xz": lambda files: lzma.compress(packed_tar(files)),
}


def members(path: Path) -> Files:
    with open_source(path, 1 << 20) as source:
        return {name: source.read(name, 1 << 20) for name in source.paths}


@pytest.mark.parametrize("how", PACKED)
def test_whatever_the_archive_the_files_are_the_same(tmp_path: Path, how: str) -> None:
    files = {"b/" + "long" * 40 + "/1": b"one", "b/2": bytes(1000), "a": b""}
    path = tmp_path / "named.wrongly"
    path.write_bytes(PACKED[how]({**files, **LITTER}))
    found = members(path)
    assert list(found.items()) == sorted(files.items())
    assert found == members(write_files(tmp_path / "folder", {**files, **LITTER}))


def batches(small: SmallCifar10, pickled: Callable[[dict], bytes]) -> Files:
    names = {name: "batches.meta" if name == "meta" else name for name in small.contents}
    return {FOLDER + names[name]: pickled(its) for name, its in small.contents.items()}


@pytest.mark.parametrize("how", [*PACKED, "folder"])
@pytest.mark.parametrize("top", ["", "more/"])
def test_cifar10_packed_otherwise(
    small_cifar10: SmallCifar10, tmp_path: Path, how: str, top: str
) -> None:
    files = {top + name: its for name, its in batches(small_cifar10, python2_pickle).items()}
    small_cifar10.path.unlink()
    if how == "folder":
        write_files(small_cifar10.archives, files)
    else:
        small_cifar10.path.with_name("mine").write_bytes(PACKED[how](files | LITTER))
    assert run_main("cifar10", "--archives", small_cifar10.archives, "--out", tmp_path) == 0
    found = tsar_jax.data.load_labelled("cifar10", tmp_path)
    assert_same_labelled(found, small_cifar10.splits)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("keys", [str, str.encode])
def test_cifar10_pickled_anew_under_python_3(
    small_cifar10: SmallCifar10, tmp_path: Path, protocol: int, keys: Callable
) -> None:
    files = batches(
        small_cifar10,
        lambda its: pickle.dumps({keys(key): value for key, value in its.items()}, protocol),
    )
    small_cifar10.path.write_bytes(packed_tar(files))
    assert run_main("cifar10", "--archives", small_cifar10.archives, "--out", tmp_path) == 0
    found = tsar_jax.data.load_labelled("cifar10", tmp_path)
    assert_same_labelled(found, small_cifar10.splits)


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name.replace("-idx", ".idx"),
        lambda name: f"{name}/{name.replace('-idx', '.idx')}",
        lambda name: f"MNIST/raw/{name}",
    ],
)
def test_mnist_named_otherwise(small_mnist: SmallSet, tmp_path: Path, renamed: Callable) -> None:
    files = {renamed(name): data for name, data in small_mnist.files.items()}
    write_files(small_mnist.archives, files | LITTER)
    assert run_main("mnist", "--archives", small_mnist.archives, "--out", tmp_path) == 0
    assert_same(tsar_jax.data.load("mnist", tmp_path).splits, small_mnist.splits)
    archive = tmp_path / "archive"
    archive.write_bytes(packed_zip(files))
    assert run_main("mnist", "--archives", archive, "--out", tmp_path / "again") == 0
    assert_same(tsar_jax.data.load("mnist", tmp_path / "again").splits, small_mnist.splits)


def test_omniglot_unpacked(small: SmallOmniglot, tmp_path: Path) -> None:
    files = {name: data for its in small.members.values() for name, data in its.items()}
    folder = write_files(tmp_path / "mine/top", files | LITTER).parent
    assert run_main("omniglot", "--archives", folder, "--out", tmp_path) == 0
    assert_same(tsar_jax.data.load("omniglot", tmp_path).splits, small.splits)


@pytest.mark.parametrize("annotated", [True, False])
@pytest.mark.parametrize("images", ["", "images/"])
def test_tiny_imagenet_with_its_validation_images_sorted(
    small_tiny: SmallTinyImagenet, tmp_path: Path, annotated: bool, images: str
) -> None:
    files = dict(small_tiny.files)
    lines = files["val/val_annotations.txt"].decode().splitlines()
    for image, label, *_ in (line.split("\t") for line in lines):
        files[f"val/{label}/{images}{image}"] = files.pop(f"val/images/{image}")
    if not annotated:
        del files["val/val_annotations.txt"]
    files["wnids.txt"] = b"\r\n" + files["wnids.txt"].replace(b"\n", b"\r\n") + b"\n\n"
    small_tiny.path.unlink()
    write_files(small_tiny.archives / "top" / "tiny-imagenet-200", files | LITTER)
    assert run_main("tiny-imagenet", "--archives", small_tiny.archives, "--out", tmp_path) == 0
    assert_same_labelled(tsar_jax.data.load_labelled("tiny_imagenet", tmp_path), small_tiny.splits)


def rows(files: Files, split: str) -> list[list[str]]:
    return [row.split(",") for row in files[f"{split}.csv"].decode().splitlines()[1:]]


def prepared_mini(archives: Path, out: Path) -> dict:
    assert run_main("mini-imagenet", "--archives", archives, "--out", out) == 0
    return tsar_jax.data.load("mini_imagenet", out).splits


def test_mini_imagenet_with_other_csv_files_and_folders(
    small_mini: SmallMiniImagenet, tmp_path: Path
) -> None:
    files = {}
    for split in ("train", "val", "test"):
        text = small_mini.files[f"{split}.csv"].decode()
        files[f"{split}.csv"] = (text.replace("filename,label", "filename, label") + "\n").encode()
        for image, label in rows(small_mini.files, split):
            files[f"images/{label}/{image}"] = small_mini.files[f"images/{image}"]
    write_files(small_mini.archives / "top", files | LITTER)
    assert_same(prepared_mini(small_mini.archives, tmp_path), small_mini.splits)


@pytest.mark.parametrize("how", ["zip", "folder"])
def test_mini_imagenet_in_class_folders(
    small_mini: SmallMiniImagenet, tmp_path: Path, how: str
) -> None:
    files = {
        f"mini/{split}/{label}/{image}": small_mini.files[f"images/{image}"]
        for split in ("train", "val", "test")
        for image, label in rows(small_mini.files, split)
    }
    if how == "zip":
        (small_mini.archives / "some.zip").write_bytes(packed_zip(files))
    else:
        write_files(small_mini.archives, files)
    found = prepared_mini(small_mini.archives, tmp_path)
    for split, expected in small_mini.splits.items():
        # The csv files have each class's images in the opposite order.
        assert found[split].names == expected.names
        np.testing.assert_array_equal(found[split].images, expected.images[:, ::-1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda f: {n: d for n, d in f.items() if "n00000001" not in n},
            "train/ of .* holds 2 classes, not 3: put a folder for each class of .* into train/",
        ),
        (
            lambda f: {n.replace("n00000003", "n00000001"): d for n, d in f.items()},
            "holds class 'n00000001' in both train/ and val/: put a folder for each class",
        ),
        (
            lambda f: {n: d for n, d in f.items() if "n000000019" not in n},
            "train/ of .* holds 3 images of class 'n00000001': every class must have the same",
        ),
    ],
)
def test_wrong_class_folders_are_named(
    small_mini: SmallMiniImagenet, tmp_path: Path, change, reason: str
) -> None:
    files = {
        f"{split}/{label}/{image}": small_mini.files[f"images/{image}"]
        for split in ("train", "val", "test")
        for image, label in rows(small_mini.files, split)
    }
    write_files(small_mini.archives, change(files))
    with pytest.raises(UserError, match=reason) as error:
        prepare_mini_imagenet(small_mini.archives, tmp_path / "out")
    assert "csv" not in str(error.value)


def test_what_is_still_refused_says_what_was_found_and_what_was_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = write_files(tmp_path / "mine", {"notes/a.txt": b"", "b.jpg": b""})
    for name, expected in {
        "omniglot": "images_background.zip is not in",
        "cifar10": "cifar-10-python.tar.gz is not in",
        "tiny-imagenet": "tiny-imagenet-200.zip is not in",
        "mnist": "has no file train-images-idx3-ubyte.gz",
        "mini-imagenet": "train.csv",
    }.items():
        assert run_main(name, "--archives", archives, "--out", tmp_path / "out") == 2
        message = capsys.readouterr().err
        assert expected in message
        assert "2 files ('b.jpg', 'notes/a.txt')" in message
    (archives / "c.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(50))
    assert run_main("cifar10", "--archives", archives / "c.7z", "--out", tmp_path / "out") == 2
    assert "c.7z is a 7z archive, of which only zip and tar" in capsys.readouterr().err


def opened(image: Image.Image, image_format: str = "PNG", **options: object) -> np.ndarray:
    data = io.BytesIO()
    image.save(data, image_format, **options)
    with open_image(data.getvalue(), ("PNG", "TIFF", "PPM"), "a", "b") as found:
        return np.asarray(found.convert("L"))


def test_pixels_of_16_bits_are_scaled_and_of_no_known_range_refused() -> None:
    wide = np.array([[0, 128, 257 * 100], [40_000, 65_534, 65_535]], np.uint16)
    scaled = np.round(wide / 257).astype(np.uint8)
    np.testing.assert_array_equal(opened(Image.fromarray(wide)), scaled)
    np.testing.assert_array_equal(opened(Image.fromarray(wide), "TIFF"), scaled)
    np.testing.assert_array_equal(opened(Image.fromarray(wide.astype(np.int32)), "PPM"), scaled)
    np.testing.assert_array_equal(opened(Image.fromarray(scaled)), scaled)
    for image in (wide.astype(np.float32), wide.astype(np.int32)):
        with pytest.raises(UserError, match="whose range is not known: convert it to 8 or 16 bits"):
            opened(Image.fromarray(image), "TIFF")
