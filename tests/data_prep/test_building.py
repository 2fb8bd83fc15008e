"""Labels across splits, and what is kept where."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from data_prep import building
from data_prep.building import ImageBuilder, number_classes, prepare_labelled
from tsar_jax.data.prepared import read_labelled
from tsar_jax.data.types import ImageSet, LabelledImages
from tsar_jax.errors import UserError

NAMES = st.lists(st.text("abc", min_size=1), min_size=1, max_size=9, unique=True)


def splits_of(*names: list[str]) -> dict[str, ImageSet]:
    return {
        f"split{i}": ImageSet(np.zeros((len(each), 2, 3, 3), np.uint8), tuple(each))
        for i, each in enumerate(names)
    }


@given(NAMES, st.integers(1, 8))
def test_labels_count_on_through_splits_of_different_classes(names: list[str], each: int) -> None:
    starts = list(range(0, len(names), each))
    found, first = number_classes(splits_of(*(names[start : start + each] for start in starts)))
    assert found == names
    assert list(first.values()) == starts


@given(NAMES, NAMES.map(lambda names: [name.upper() for name in names]))
def test_splits_of_the_same_classes_share_their_labels(first: list[str], other: list[str]) -> None:
    names, labels = number_classes(splits_of(first, other, first, other))
    assert names == first + other
    assert list(labels.values()) == [0, len(first), 0, len(first)]


class Tiny(ImageBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Two images."""

    VERSION = tfds.core.Version("1.0.0")
    name = "tiny"


def images_of(value: int) -> dict[str, LabelledImages]:
    images = np.full((2, 3, 3), value, np.uint8)
    return {"train": LabelledImages(images, np.array([0, 1], np.int32), ("a", "b"))}


def prepared_value(out: Path) -> int:
    return int(read_labelled(out / "tiny" / "1.0.0", "")["train"].images[0, 0, 0])


@pytest.mark.parametrize("exchanges", [True, False])
def test_data_that_are_replaced_are_never_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(building, "_exchange", lambda one, other: False)
    prepare_labelled(Tiny, lambda: images_of(1), tmp_path)
    prepare_labelled(Tiny, lambda: images_of(2), tmp_path, overwrite=True)
    assert prepared_value(tmp_path) == 2
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if Path(target).name == "1.0.0" and path.name != "previous":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    if exchanges:
        prepare_labelled(Tiny, lambda: images_of(3), tmp_path, overwrite=True)
    else:
        with pytest.raises(KeyboardInterrupt):
            prepare_labelled(Tiny, lambda: images_of(3), tmp_path, overwrite=True)
    assert prepared_value(tmp_path) == (3 if exchanges else 2)


def test_what_a_killed_preparation_left_is_put_back_and_cleared(tmp_path: Path) -> None:
    folder, _ = prepare_labelled(Tiny, lambda: images_of(1), tmp_path)
    (folder.parent / "incomplete" / "rest").mkdir(parents=True)
    folder.rename(folder.parent / "previous")
    assert not prepare_labelled(Tiny, lambda: images_of(2), tmp_path).written
    assert prepared_value(tmp_path) == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", "1.0.0"]


def test_preparations_leave_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def fails() -> dict[str, LabelledImages]:
        raise UserError("no")

    with pytest.raises(UserError):
        prepare_labelled(Tiny, fails, tmp_path / "new" / "out")
    prepare_labelled(Tiny, lambda: images_of(1), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "temporary"]
    assert not list((tmp_path / "temporary").iterdir())
