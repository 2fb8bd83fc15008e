"""Data sets by name, and the packaged Omniglot and EMNIST."""

import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tsar_jax.data import (
    ImageSet,
    LabelledImages,
    cifar100,
    emnist,
    load,
    mini_imagenet,
    mnist,
    omniglot,
)
from tsar_jax.errors import UserError


@pytest.fixture(autouse=True)
def no_prepared_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))


def test_omniglot_comes_with_the_package() -> None:
    start = time.thread_time()
    dataset = load("omniglot")
    seconds = time.thread_time() - start
    background, evaluation = dataset.splits["background"], dataset.splits["evaluation"]
    assert dataset.source == f"packaged: {omniglot.PACKAGED}"
    assert background.images.shape == (964, 20, 28, 28)
    assert evaluation.images.shape == (659, 20, 28, 28)
    assert background.images.dtype == evaluation.images.dtype == np.uint8
    assert len(set(background.names + evaluation.names)) == 1623
    assert list(background.names) == sorted(background.names)
    assert background.names[0] == "Alphabet_of_the_Magi/character01"
    assert evaluation.names[-1] == "ULOG/character26"
    # Dark ink on white paper: about the mean and deviation that ANML normalises by.
    assert background.images.mean() / 256 == pytest.approx(0.922, abs=0.01)
    assert seconds < 4  # of a core's time, whatever else it does: 0.2 s on a fast one


def test_part_of_emnist_comes_with_the_package() -> None:
    dataset = load("emnist")
    (images,) = dataset.splits.values()
    source = f"packaged: EMNIST ByMerge test, 400 images a class: {emnist.PACKAGED}"
    assert (dataset.name, dataset.source) == ("emnist", source)
    assert list(dataset.splits) == ["train"]
    assert images.images.shape == (47, 400, 28, 28)
    assert images.images.dtype == np.uint8
    assert images.names == emnist.NAMES
    assert (images.images.min(), images.images.max()) == (0, 255)
    # Bright ink on a black ground.
    assert np.median(images.images) == 0
    notice = (emnist.PACKAGED.parent / "EMNIST_NOTICE").read_text()
    assert "not the official EMNIST Balanced data set" in notice.replace("\n", " ")
    assert "government of the United States" in notice


def test_the_packaged_emnist_is_upright() -> None:
    images = load("emnist").splits["train"].images
    ink = {name: images[label] / 255 for label, name in enumerate(emnist.NAMES)}
    # Not transposed: a 1 is taller than it is wide.
    tall = np.sum(ink["1"].max(axis=2) > 0.25, axis=1)
    wide = np.sum(ink["1"].max(axis=1) > 0.25, axis=1)
    assert np.mean(tall > wide) > 0.95
    # Not upside down: of a 7 or a T more ink is in the upper half.
    for name in "7T":
        assert ink[name][:, :14].sum() > 1.5 * ink[name][:, 14:].sum()
    # Not mirrored: however both are slanted, a d has its stem further right than a b.
    assert stem(ink["d"]) > stem(ink["b"]) + 2


def stem(ink: np.ndarray) -> float:
    """By how many pixels the upper half's ink is further right, on average, than the lower's."""
    columns = np.arange(28)
    upper, lower = ink[:, :14].sum(axis=(0, 1)), ink[:, 14:].sum(axis=(0, 1))
    return float(upper @ columns / upper.sum() - lower @ columns / lower.sum())


def test_the_notice_of_omniglot_comes_along() -> None:
    notice = (omniglot.PACKAGED.parent / "OMNIGLOT_LICENSE").read_text()
    assert "Copyright (c) 2015 Brenden Lake" in notice
    assert "Permission is hereby granted" in notice
    assert "github.com/brendenlake/omniglot" in notice


def test_an_empty_folder_gives_the_packaged_default(tmp_path: Path) -> None:
    (tmp_path / "omniglot28" / "0.9.0").mkdir(parents=True)
    assert load("omniglot", tmp_path).source.startswith("packaged")
    assert load("omniglot", str(tmp_path)).source.startswith("packaged")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'omnigrot'.*omniglot"):
        load("omnigrot")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("omniglot", "tsar-jax prepare omniglot --out"),
        ("cifar100", "tsar-jax prepare cifar100 --out"),
        ("emnist", "tsar-jax prepare emnist --out"),
        ("mnist", "tsar-jax prepare mnist --out"),
        ("mini_imagenet", "tsar-jax prepare mini-imagenet --archives DIR --out"),
    ],
)
def test_a_folder_that_does_not_exist_is_a_clear_error(
    tmp_path: Path, name: str, command: str
) -> None:
    with pytest.raises(UserError, match=rf"missing is not a folder.*{command}"):
        load(name, tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "what", "whom", "command"),
    [
        (
            "cifar100",
            "cifar-100-python.tar.gz",
            "www.cs.toronto.edu/~kriz",
            "tsar-jax prepare cifar100 --out",
        ),
        (
            "mnist",
            "train-images-idx3-ubyte.gz and the three other files",
            "storage.googleapis.com/cvdf-datasets/mnist",
            "tsar-jax prepare mnist --out",
        ),
        (
            "mini_imagenet",
            "train.csv, val.csv and test.csv of the Ravi & Larochelle split",
            "github.com/twitter-research/meta-learning-lstm",
            "tsar-jax prepare mini-imagenet --archives DIR --out",
        ),
    ],
)
def test_what_was_not_prepared_says_what_to_get_from_whom_and_the_command(
    tmp_path: Path, name: str, what: str, whom: str, command: str
) -> None:
    with pytest.raises(UserError, match=f"is not prepared in {tmp_path}: ") as error:
        load(name, tmp_path)
    message = str(error.value)
    assert what in message
    assert whom in message
    assert f"`{command} {tmp_path}`" in message
    assert "\n" not in message
    with pytest.raises(UserError, match=f"is not prepared in {tmp_path}/none: "):
        load(name)


@pytest.mark.parametrize("module", [cifar100, mini_imagenet])
def test_splits_that_are_not_the_data_sets_are_told_apart(module: ModuleType) -> None:
    sizes = {
        cifar100: {"train": (100, 500), "test": (100, 100)},
        mini_imagenet: {"train": (64, 600), "val": (16, 600), "test": (20, 600)},
    }[module]
    right = {
        split: ImageSet(blank(*size, 28, 28, 3), tuple(map(str, range(size[0]))))
        for split, size in sizes.items()
    }
    test = right["test"]
    assert module.layout_problem(right) is None
    wrong = {
        "its splits are": {"test": test},
        "its test images are": right | {"test": ImageSet(test.images[:, :50], test.names)},
        "test images are float32": right | {"test": ImageSet(blank(1, 2, dtype="f4"), ("a",))},
        "names for": right | {"test": ImageSet(test.images, test.names[1:])},
    }
    for problem, splits in wrong.items():
        assert problem in (module.layout_problem(splits) or "")


def test_characters_in_another_order_are_told_apart() -> None:
    names = emnist.NAMES
    splits = {
        split: ImageSet(blank(len(names), each, 28, 28), names)
        for split, each in emnist.IMAGES_PER_CLASS.items()
    }
    assert emnist.layout_problem(splits) is None
    other = splits | {"test": ImageSet(splits["test"].images, names[::-1])}
    assert "its classes are not" in (emnist.layout_problem(other) or "")
    assert "its splits are" in (emnist.layout_problem({"test": splits["test"]}) or "")
    short = splits | {"train": ImageSet(splits["train"].images[:, 1:], names)}
    assert "its train images are" in (emnist.layout_problem(short) or "")


def test_other_digits_than_mnists_are_told_apart() -> None:
    labels = {
        "train": np.repeat(np.arange(10), [6500] * 5 + [5421] + [5500] * 3 + [5579]),
        "test": np.repeat(np.arange(10), [1012] * 5 + [892] + [1012] * 4),
    }
    splits = {
        split: LabelledImages(blank(len(each), 28, 28), each, mnist.NAMES)
        for split, each in labels.items()
    }
    test = splits["test"]
    assert mnist.layout_problem(splits) is None
    wrong = {
        "its splits are": {"test": test},
        "its classes are not": LabelledImages(test.images, test.labels, mnist.NAMES[::-1]),
        "9999, 892 of the rarest": LabelledImages(test.images[1:], test.labels[1:], mnist.NAMES),
        "10000, 893 of the rarest": LabelledImages(
            test.images, np.where(np.arange(10_000) == 0, 5, test.labels), mnist.NAMES
        ),
        "not [28, 28]": LabelledImages(blank(10_000, 32, 32), test.labels, mnist.NAMES),
        "class '9' has no test images": LabelledImages(
            test.images, np.minimum(test.labels, 8), mnist.NAMES
        ),
    }
    for problem, other in wrong.items():
        changed = other if isinstance(other, dict) else splits | {"test": other}
        assert problem in (mnist.layout_problem(changed) or "")


def test_the_splits_of_cifar100_must_be_of_the_same_classes() -> None:
    names = tuple(map(str, range(100)))
    splits = {
        "train": ImageSet(blank(100, 500, 28, 28, 3), names),
        "test": ImageSet(blank(100, 100, 28, 28, 3), names[::-1]),
    }
    assert cifar100.layout_problem(splits) == "its splits are not of the same classes"


def test_mini_imagenet_must_be_of_an_even_number_of_images() -> None:
    splits = {
        split: ImageSet(blank(classes, 3, 28, 28, 3), tuple(map(str, range(classes))))
        for split, classes in mini_imagenet.CLASSES.items()
    }
    assert "of 3 images" in (mini_imagenet.layout_problem(splits) or "")


def blank(*shape: int, dtype: str = "u1") -> np.ndarray:
    """Zeros that take no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def test_a_folder_without_its_record_is_incomplete(tmp_path: Path) -> None:
    (tmp_path / "omniglot28" / "1.0.0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"are incomplete: run .*--overwrite"):
        load("omniglot", tmp_path)


@pytest.mark.parametrize("module", [emnist, omniglot])
@pytest.mark.parametrize("damage", ["lost", "truncated", "altered", "not a zip"])
def test_a_damaged_packaged_file_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, module: ModuleType
) -> None:
    path = tmp_path / module.PACKAGED.name
    content = module.PACKAGED.read_bytes()
    middle = len(content) // 2
    if damage == "truncated":
        path.write_bytes(content[:middle])
    elif damage == "altered":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "not a zip":
        path.write_bytes(b"nonsense")
    monkeypatch.setattr(module, "PACKAGED", path)
    with pytest.raises(UserError, match="missing or damaged: install tsar_jax anew") as error:
        load(module.PREPARED.name)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("change", ["image", "name"])
def test_other_data_in_a_sound_file_are_refused(tmp_path: Path, change: str) -> None:
    with np.load(omniglot.PACKAGED) as file:
        arrays = dict(file)
    if change == "image":
        arrays["background"][0, 0, 0, 0] ^= 1
    else:
        arrays["evaluation_names"][0] = "Angelic/character99"
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(UserError, match="missing or damaged"):
        omniglot.read_packaged(tmp_path / "other.npz")


@pytest.mark.parametrize("change", ["image", "name"])
def test_other_characters_in_a_sound_file_are_refused(tmp_path: Path, change: str) -> None:
    with np.load(emnist.PACKAGED) as file:
        arrays = dict(file)
    if change == "image":
        arrays["train"][0, 0, 0, 0] ^= 1
    else:
        arrays["train_names"][0] = "O"
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(UserError, match=f"damaged: .*`{emnist.PREPARED.command}`"):
        emnist.read_packaged(tmp_path / "other.npz")


@pytest.mark.parametrize("name", ["emnist", "omniglot"])
def test_the_default_needs_neither_tensorflow_datasets_nor_pillow(name: str) -> None:
    code = (
        f"import sys, tsar_jax.data; tsar_jax.data.load({name!r});"
        "print([m for m in ('tensorflow_datasets', 'PIL', 'array_record') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
