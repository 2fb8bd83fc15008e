"""Masks choose by name; a partition loses nothing."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsar_jax.errors import UserError
from tsar_jax.plasticity.masks import combine, leaf_names, mask, partition

PARAMS = {
    "head": {"bias": 0, "kernel": 1},
    "trunk": {"block_0": {"kernel": 2}, "block_01": {"kernel": 3}},
    "trunk_2": {"kernel": 4},
}
leaves = st.integers(-9, 9).map(lambda value: np.full(2, value))
names = st.text("abc/", min_size=1, max_size=3).filter(lambda name: "/" not in name)
trees = st.recursive(
    st.dictionaries(names, leaves, min_size=1, max_size=3),
    lambda below: st.dictionaries(names, below | leaves, min_size=1, max_size=3),
    max_leaves=8,
)


def chosen(*prefixes):
    plastic = mask(PARAMS, prefixes)
    assert jax.tree.structure(plastic) == jax.tree.structure(PARAMS)
    return {
        name
        for name, keep in zip(leaf_names(PARAMS), jax.tree.leaves(plastic), strict=True)
        if keep
    }


@pytest.mark.parametrize(
    ("prefixes", "wanted"),
    [
        (["head"], {"head/bias", "head/kernel"}),
        (["head/bias"], {"head/bias"}),
        (["trunk"], {"trunk/block_0/kernel", "trunk/block_01/kernel"}),
        (["trunk/block_0"], {"trunk/block_0/kernel"}),
        (["trunk_2", "head/kernel"], {"trunk_2/kernel", "head/kernel"}),
        (["all"], set(leaf_names(PARAMS))),
        ([], set()),
    ],
)
def test_mask_takes_a_name_and_what_lies_below_it(prefixes, wanted):
    assert chosen(*prefixes) == wanted


@pytest.mark.parametrize("name", ["tru", "trunk/block", "head/bias/x", "kernel", "", "trunk/"])
def test_unknown_name_is_refused_with_the_choices(name):
    with pytest.raises(UserError, match=r"head, trunk, trunk_2") as error:
        mask(PARAMS, ["head", name])
    assert repr(name) in str(error.value)


@given(tree=trees, data=st.data())
def test_partition_and_combine_undo_each_other(tree, data):
    flat, structure = jax.tree.flatten(tree)
    choice = data.draw(st.lists(st.booleans(), min_size=len(flat), max_size=len(flat)))
    plastic = jax.tree.unflatten(structure, choice)
    first, second = partition(tree, plastic)
    kept = [leaf for leaf, keep in zip(flat, choice, strict=True) if keep]
    left = [leaf for leaf, keep in zip(flat, choice, strict=True) if not keep]
    assert all(a is b for a, b in zip(jax.tree.leaves(first), kept, strict=True))
    assert all(a is b for a, b in zip(jax.tree.leaves(second), left, strict=True))
    for joined in (combine(first, second), combine(second, first)):
        assert jax.tree.structure(joined) == structure
        assert all(a is b for a, b in zip(jax.tree.leaves(joined), flat, strict=True))


@given(tree=trees)
def test_every_name_selects_its_own_array(tree):
    for index, name in enumerate(leaf_names(tree)):
        picked = jax.tree.leaves(mask(tree, [name]))
        assert [i for i, keep in enumerate(picked) if keep] == [index]
