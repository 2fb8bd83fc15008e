"""Labelled data sets: made of groups, grouped again, cut, checked and found by name."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsar_jax.data import Dataset, ImageSet, LabelledDataset, LabelledImages, load, load_labelled
from tsar_jax.data.labelled import (
    first_of_each,
    labelled_problem,
    note_subset,
    pool,
    train_and_test,
)
from tsar_jax.errors import UserError


def image_set(classes: int, per_class: int, first: int = 0) -> ImageSet:
    """Every image tells its class, counted from `first`, and its number."""
    images = np.empty((classes, per_class, 1, 2), np.uint8)
    images[..., 0, 0] = first + np.arange(classes)[:, None]
    images[..., 0, 1] = np.arange(per_class)
    return ImageSet(images, tuple(map(str, range(first, first + classes))))


def labelled(labels: list[int], names: str) -> LabelledImages:
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None]
    return LabelledImages(images, np.array(labels, np.int32), tuple(names))


SIZES = st.lists(st.tuples(st.integers(1, 4), st.integers(2, 9)), min_size=1, max_size=4)


@given(SIZES, st.integers(2, 5))
def test_pooled_classes_are_cut_into_all_of_their_images(
    sizes: list[tuple[int, int]], every: int
) -> None:
    starts = np.cumsum([0] + [classes for classes, _ in sizes])[:-1]
    splits = {
        f"split{start}": image_set(classes, per_class, start)
        for (classes, per_class), start in zip(sizes, starts, strict=True)
    }
    dataset = Dataset("some", splits, "here")
    if min(per_class for _, per_class in sizes) < every:
        with pytest.raises(UserError, match=r"some \(here\) has .* prepare \d or more"):
            train_and_test(dataset, every)
        return
    found = train_and_test(dataset, every)
    seen = set()
    for part, for_testing in ((found.train, False), (found.test, True)):
        assert part.labels.dtype == np.int32
        assert part.names == tuple(str(label) for label in range(sum(c for c, _ in sizes)))
        np.testing.assert_array_equal(part.images[:, 0, 0], part.labels)
        assert (part.images[:, 0, 1] % every == every - 1).all() == for_testing
        assert set(part.labels) == set(range(len(part.names)))
        seen |= set(map(np.ndarray.tobytes, part.images))
    assert len(seen) == len(found.train.labels) + len(found.test.labels)
    assert len(seen) == sum(classes * per_class for classes, per_class in sizes)
    assert found.source == f"here; one of {every} images of a class is for testing"


def test_splits_of_the_same_classes_are_not_cut() -> None:
    splits = {"train": image_set(2, 3), "test": image_set(2, 1)}
    found = train_and_test(Dataset("some", splits, "here"))
    assert found.source == "here"
    np.testing.assert_array_equal(found.train.labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(found.test.labels, [0, 1])
    np.testing.assert_array_equal(found.train.images, splits["train"].images.reshape(6, 1, 2))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.integers(1, 4))
def test_the_first_of_each_class_keep_their_order(labels: list[int], per_class: int) -> None:
    images = labelled(labels, "abc")
    wanted = [[i for i, label in enumerate(labels) if label == c][:per_class] for c in range(3)]
    if min(map(len, wanted)) < per_class:
        with pytest.raises(ValueError, match="a class has"):
            first_of_each(images, per_class)
    else:
        found = first_of_each(images, per_class)
        np.testing.assert_array_equal(found.images[:, :, 0, 0], wanted)
        assert found.names == images.names


def test_grouping_undoes_pooling() -> None:
    images = image_set(3, 4)
    np.testing.assert_array_equal(first_of_each(pool([images]), 4).images, images.images)


def test_a_subset_says_how_many_images_it_has() -> None:
    dataset = LabelledDataset("some", labelled([0, 1, 1], "ab"), labelled([0, 1], "ab"), "here")
    assert note_subset(dataset, 3, 2) == dataset
    source = "a subset: 3 of 30 training and 2 of 2 test images, here"
    assert note_subset(dataset, 30, 2).source == source


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        ({"train": labelled([0, 1], "ab")}, "its splits are ['train']"),
        ({"test": labelled([0, 1], "abc")}, "its test images are of 3 classes, not 2"),
        ({"test": labelled([1, 1], "ab")}, "class 'a' has no test images"),
        ({"test": labelled([], "ab")}, "class 'a' has no test images"),
        ({"test": LabelledImages(np.zeros((2, 1, 1)), np.arange(2), ("a", "b"))}, "are float64"),
        ({"test": LabelledImages(np.zeros((2, 3), "u1"), np.arange(2), ("a", "b"))}, "uint8 [3]"),
    ],
)
def test_splits_that_are_not_labelled_soundly_are_told_apart(
    splits: dict[str, LabelledImages], problem: str
) -> None:
    right = {"train": labelled([0, 1, 1], "ab"), "test": labelled([1, 0], "ab")}
    assert labelled_problem(right, 2, (1, 1)) is None
    changed = right | splits if "test" in splits else splits
    assert problem in (labelled_problem(changed, 2, (1, 1)) or "")


def test_the_packaged_emnist_is_cut() -> None:
    found, whole = load_labelled("emnist"), load("emnist")
    assert found.name == "emnist"
    assert found.source == f"{whole.source}; one of 5 images of a class is for testing"
    assert found.train.images.shape == (15_040, 28, 28)
    assert found.test.images.shape == (3_760, 28, 28)
    images = whole.splits["train"]
    assert found.train.names == found.test.names == images.names
    np.testing.assert_array_equal(np.bincount(found.test.labels), [80] * 47)
    np.testing.assert_array_equal(found.test.images[80], images.images[1, 4])
    np.testing.assert_array_equal(found.train.images[324], images.images[1, 5])


def test_the_digits_of_emnist_are_its_first_classes() -> None:
    digits, every = load_labelled("emnist_digits"), load_labelled("emnist")
    assert digits.name == "emnist_digits"
    assert "digits alone" in digits.source
    assert digits.train.names == tuple("0123456789")
    np.testing.assert_array_equal(digits.train.images, every.train.images[:3200])
    np.testing.assert_array_equal(digits.test.labels, every.test.labels[:800])


def test_omniglot_is_pooled_and_cut() -> None:
    found, whole = load_labelled("omniglot"), load("omniglot")
    assert found.train.images.shape == (1623 * 16, 28, 28)
    assert found.test.images.shape == (1623 * 4, 28, 28)
    assert found.test.names == whole.splits["background"].names + whole.splits["evaluation"].names
    np.testing.assert_array_equal(np.bincount(found.train.labels), [16] * 1623)
    np.testing.assert_array_equal(
        found.test.images[964 * 4 :].reshape(659, 4, 28, 28),
        whole.splits["evaluation"].images[:, 4::5],
    )


def test_an_unknown_labelled_data_set_is_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'imagenet': choose one of .*emnist_dig"):
        load_labelled("imagenet")


@pytest.mark.parametrize(
    ("name", "whom", "command"),
    [
        ("cifar10", "www.cs.toronto.edu/~kriz", "cifar10"),
        ("cifar100", "www.cs.toronto.edu/~kriz", "cifar100"),
        ("mini_imagenet", "image-net.org", "mini-imagenet --archives DIR"),
        ("mnist", "storage.googleapis.com/cvdf-datasets/mnist", "mnist"),
        ("tiny_imagenet", "cs231n.stanford.edu", "tiny-imagenet"),
    ],
)
def test_what_was_not_prepared_says_what_to_get_from_whom_and_the_command(
    tmp_path: Path, name: str, whom: str, command: str
) -> None:
    with pytest.raises(UserError, match=rf"is not prepared in {tmp_path}: ") as error:
        load_labelled(name, tmp_path)
    message = str(error.value)
    assert whom in message
    assert f"`tsar-jax prepare {command} --out {tmp_path}`" in message
    assert "\n" not in message


def test_a_folder_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing is not a folder .*`tsar-jax prepare emnist"):
        load_labelled("emnist_digits", tmp_path / "missing")
