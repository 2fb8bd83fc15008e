"""Labels across splits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_prep.building import number_classes
from tsar_jax.data.types import ImageSet

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
