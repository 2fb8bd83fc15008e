"""Fixtures of the tests of `data_prep`."""

from pathlib import Path

import numpy as np
import pytest
import small_cifar100
import small_idx
from small_cifar10 import NAMES as CIFAR10_NAMES
from small_cifar10 import SmallCifar10
from small_cifar100 import SmallCifar100
from small_idx import SmallSet
from small_mini_imagenet import CLASSES as MINI_CLASSES
from small_mini_imagenet import SmallMiniImagenet
from small_omniglot import CLASSES, SmallOmniglot, png, resized, write_zip
from small_tiny_imagenet import COUNTS as TINY_COUNTS
from small_tiny_imagenet import SmallTinyImagenet

from tsar_jax.data import cifar10, cifar100, emnist, mini_imagenet, mnist, omniglot, tiny_imagenet
from tsar_jax.data.types import ImageSet


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallOmniglot:
    """Two archives of few classes, which `omniglot.SPLITS` now asks for."""
    random = np.random.default_rng(0)
    archives = tmp_path / "archives"
    archives.mkdir()
    all_members, splits, expected = {}, {}, {}
    for split, names in CLASSES.items():
        pixels = 255 * random.integers(0, 2, (len(names), 20, 105, 105), dtype=np.uint8)
        images = np.stack([[resized(drawing) for drawing in drawings] for drawings in pixels])
        members = {
            f"images_{split}/{name}/0001_{number + 1:02}.png": png(pixels[index, number])
            for index, name in enumerate(names)
            for number in range(20)
        }
        # Zips keep the order of writing: here not the sorted one that the images must come in.
        all_members[split] = dict(reversed(members.items()))
        write_zip(archives / f"images_{split}.zip", all_members[split])
        splits[split] = ImageSet(images, names)
        expected[split] = omniglot.Split(len(names), *omniglot.digests(splits[split]))
    monkeypatch.setattr(omniglot, "SPLITS", expected)
    return SmallOmniglot(archives, all_members, splits)


@pytest.fixture
def small_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallCifar10:
    """An archive of few classes and images, which `cifar10` now asks for."""
    monkeypatch.setattr(cifar10, "CLASSES", len(CIFAR10_NAMES))
    small = SmallCifar10.make(tmp_path / "archives")
    small.write()
    return small


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallCifar100:
    """An archive of few classes and images, which `cifar100` now asks for."""
    monkeypatch.setattr(cifar100, "CLASSES", small_cifar100.CLASSES)
    monkeypatch.setattr(cifar100, "IMAGES_PER_CLASS", small_cifar100.PER_CLASS)
    archives = tmp_path / "archives"
    archives.mkdir()
    small = small_cifar100.make_small_cifar100(archives)
    small.write()
    return small


@pytest.fixture
def small_mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallMiniImagenet:
    """A folder of few images in few classes, which `mini_imagenet` now asks for."""
    monkeypatch.setattr(mini_imagenet, "CLASSES", MINI_CLASSES)
    return SmallMiniImagenet.make(tmp_path / "archives")


@pytest.fixture
def small_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallTinyImagenet:
    """An archive of few images in few classes, which `tiny_imagenet` now asks for."""
    monkeypatch.setattr(tiny_imagenet, "CLASSES", len(TINY_COUNTS))
    small = SmallTinyImagenet.make(tmp_path / "archives")
    small.write(small.files)
    return small


@pytest.fixture
def small_emnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallSet:
    """Files of few images in few classes, which `emnist` now asks for, in no archive yet."""
    monkeypatch.setattr(emnist, "NAMES", small_idx.EMNIST_NAMES)
    monkeypatch.setattr(emnist, "IMAGES_PER_CLASS", small_idx.EMNIST_PER_CLASS)
    archives = tmp_path / "archives"
    archives.mkdir()
    return small_idx.make_small_emnist(archives)


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallSet:
    """Files of few images of few digits, which `mnist` now asks for, not yet written."""
    counts = {split: len(labels) for split, labels in small_idx.MNIST_LABELS.items()}
    monkeypatch.setattr(mnist, "NAMES", small_idx.MNIST_NAMES)
    monkeypatch.setattr(mnist, "IMAGES", counts)
    monkeypatch.setattr(mnist, "IMAGES_PER_CLASS", small_idx.MNIST_PER_CLASS)
    archives = tmp_path / "archives"
    archives.mkdir()
    return small_idx.make_small_mnist(archives)
