"""Reservoir, ring and draws: where items go, how likely they stay, and that nothing is copied."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tsar_jax.plasticity.buffer import (
    add_to_reservoir,
    draw,
    empty_buffer,
    put,
    reservoir_indices,
    ring_indices,
)

ITEM = {"value": jax.ShapeDtypeStruct((), jnp.int32)}


def offered(buffer, key, values, mask=None):
    mask = jnp.ones(len(values)) if mask is None else jnp.asarray(mask)
    return add_to_reservoir(buffer, key, {"value": jnp.asarray(values)}, mask)


def test_every_item_is_equally_likely_kept() -> None:
    """Batches of 7 to a reservoir of 10, 41 items: chi-squared over which of them are kept."""
    capacity, items, runs = 10, 41, 4000

    def one(key):
        buffer = empty_buffer(capacity, ITEM)
        for start in range(0, items, 7):
            rows = jnp.arange(start, start + 7)
            buffer = offered(buffer, jax.random.fold_in(key, start), rows, rows < items)
        return buffer

    kept = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), runs))
    assert (np.asarray(kept.seen) == items).all()
    values = np.asarray(kept.items["value"])
    assert all(len(set(row)) == capacity for row in values)
    counts = np.bincount(values.ravel(), minlength=items)
    expected = runs * capacity / items
    # Of each run exactly `capacity` are kept: variances are smaller by this factor.
    statistic = ((counts - expected) ** 2 / expected).sum() / (1 - capacity / items)
    assert stats.chi2.sf(statistic, items - 1) > 0.001


def test_an_unfair_reservoir_is_noticed() -> None:
    """The statistic above would refuse slots drawn below capacity + 1 rather than below t + 1."""
    capacity, items, runs = 10, 41, 4000
    random = np.random.default_rng(0)
    kept = np.tile(np.arange(capacity), (runs, 1))
    for item in range(capacity, items):
        indices = random.integers(0, capacity + 1, runs)
        inside = indices < capacity
        kept[inside, indices[inside]] = item
    counts = np.bincount(kept.ravel(), minlength=items)
    expected = runs * capacity / items
    statistic = ((counts - expected) ** 2 / expected).sum() / (1 - capacity / items)
    assert stats.chi2.sf(statistic, items - 1) < 1e-6


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), seen=st.integers(0, 30), absent=st.integers(0, 5))
def test_items_come_one_after_another(seed, seen, absent) -> None:
    capacity = 8
    mask = (np.arange(6) < 6 - absent).astype(np.int32)
    indices = np.asarray(
        reservoir_indices(jax.random.key(seed), jnp.int32(seen), jnp.asarray(mask), capacity)
    )
    buffer = empty_buffer(capacity, ITEM)._replace(seen=jnp.int32(seen))
    values = np.arange(100, 106, dtype=np.int32)
    ours = put(buffer, jnp.asarray(indices), {"value": jnp.asarray(values)}, buffer.seen)
    theirs = np.zeros(capacity, np.int32)
    for row in range(6):
        order = seen + row
        if mask[row] and order < capacity:
            assert indices[row] == order
        if mask[row] and indices[row] < capacity:
            theirs[indices[row]] = values[row]
    assert np.array_equal(ours.items["value"], theirs)
    assert (indices[mask == 0] == capacity).all()


def test_a_ring_overwrites_its_oldest() -> None:
    indices = ring_indices(jnp.int32(4), jnp.int32(3), jnp.int32(2), jnp.ones(5, jnp.int32))
    assert indices.tolist() == [6, 4, 5, 6, 4]


@pytest.mark.parametrize("filled", [0, 3, 20, 64])
def test_a_draw_is_of_different_items_that_are_there(filled) -> None:
    buffer = empty_buffer(64, ITEM)
    buffer = offered(buffer, jax.random.key(0), np.arange(1, filled + 1)) if filled else buffer
    drawn = jax.jit(lambda key: draw(buffer, key, 16))(jax.random.key(1))
    there = np.asarray(drawn.items["value"])[np.asarray(drawn.mask) > 0]
    assert len(there) == min(filled, 16) == len(set(there))
    assert (there > 0).all()


def test_draws_are_uniform() -> None:
    buffer = offered(empty_buffer(12, ITEM), jax.random.key(0), np.arange(9))
    keys = jax.random.split(jax.random.key(2), 3000)
    indices = jax.jit(jax.vmap(lambda key: draw(buffer, key, 4).indices))(keys)
    counts = np.bincount(np.asarray(indices).ravel(), minlength=12)
    assert counts[9:].sum() == 0
    statistic = ((counts[:9] - 12000 / 9) ** 2 / (12000 / 9)).sum() / (1 - 4 / 9)
    assert stats.chi2.sf(statistic, 8) > 0.001


def test_no_step_copies_the_buffer() -> None:
    """The compiled loop of draws and stores has no copy of the images' array within it."""
    like = {"images": jax.ShapeDtypeStruct((28, 28, 1), jnp.uint8)}

    def steps(buffer, key, count):
        def step(index, carry):
            buffer, total = carry
            key_of = jax.random.fold_in(key, index)
            drawn = draw(buffer, key_of, 32)
            images = (drawn.items["images"][:8] + 1).astype(jnp.uint8)
            total += drawn.items["images"].sum(dtype=jnp.int32)
            return add_to_reservoir(buffer, key_of, {"images": images}, jnp.ones(8)), total

        return jax.lax.fori_loop(0, count, step, (buffer, jnp.int32(0)))

    buffer = empty_buffer(500, like)
    compiled = jax.jit(steps, donate_argnums=0).lower(buffer, jax.random.key(0), 3).compile()
    copies = re.findall(r"u8\[500,28,28,1\]\S* copy\(", compiled.as_text())
    assert not copies
