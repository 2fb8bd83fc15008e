"""Fixtures of the tests of `data_prep`."""

from pathlib import Path

import numpy as np
import pytest
from small_omniglot import CLASSES, SmallOmniglot, png, resized, write_zip

from tsar_jax.data import omniglot
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
