"""What the tests of all data sets do and check alike."""

import re
from pathlib import Path

import numpy as np
import pytest

from data_prep.__main__ import main
from tsar_jax.data.types import ImageSet, LabelledDataset, LabelledImages


def run_main(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def assert_same(found: dict[str, ImageSet], expected: dict[str, ImageSet]) -> None:
    assert set(found) == set(expected)
    for split, images in expected.items():
        assert found[split].names == images.names
        assert found[split].images.dtype == np.uint8
        np.testing.assert_array_equal(found[split].images, images.images)


def assert_same_labelled(found: LabelledDataset, expected: dict[str, LabelledImages]) -> None:
    assert set(expected) == {"train", "test"}
    for split, images in {"train": found.train, "test": found.test}.items():
        assert images.names == expected[split].names
        np.testing.assert_array_equal(images.images, expected[split].images, strict=True)
        np.testing.assert_array_equal(images.labels, expected[split].labels, strict=True)


def assert_nothing_prepared(out: Path) -> None:
    """Below `out` there may be the data set's own folder, but none in it."""
    assert not [path for path in out.rglob("*") if path.is_dir() and path.parent != out]


def assert_refused(
    capsys: pytest.CaptureFixture[str], name: str, archive: Path, out: Path, reason: str
) -> None:
    """An archive is refused in one clear sentence, and nothing is prepared below `out`."""
    assert run_main(name, "--archives", archive.parent, "--out", out) == 2
    message = capsys.readouterr().err.strip()
    assert re.search(reason, message)
    assert str(archive) in message
    assert message.endswith("again")
    assert "\n" not in message
    assert_nothing_prepared(out)
