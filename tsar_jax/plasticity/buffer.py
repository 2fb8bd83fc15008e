"""Episodic memory: a buffer of arrays of a fixed size, filled by a reservoir or as a ring."""

from collections.abc import Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Buffer(NamedTuple):
    """A buffer's items.

    items: arrays [capacity, ...] by name, all zeros where never filled. seen: number of items
    offered, int32 [].
    """

    items: dict[str, jax.Array]
    seen: jax.Array

    @property
    def capacity(self) -> int:
        return next(iter(self.items.values())).shape[0]

    @property
    def filled(self) -> jax.Array:
        """Return the number of filled entries, int32 []."""
        return jnp.minimum(self.seen, self.capacity)


def empty_buffer(capacity: int, like: Mapping[str, jax.ShapeDtypeStruct]) -> Buffer:
    """Return a buffer of zeros.

    Args:
        capacity: number of entries.
        like: item spec, the shape and dtype of one item's arrays by name.
    """
    items = {name: jnp.zeros((capacity, *item.shape), item.dtype) for name, item in like.items()}
    return Buffer(items, jnp.zeros((), jnp.int32))


def reservoir_indices(key: jax.Array, seen: jax.Array, mask: jax.Array, capacity: int) -> jax.Array:
    """Return the entries into which reservoir sampling (Vitter 1985) writes consecutive items.

    Item t, counted from 0, takes entry t while the buffer is not full, then a random one of t + 1,
    if there is such an entry.

    Args:
        key: for the random entries.
        seen: number of items that came before, int [].
        mask: int [N], 1 for items, 0 for padding.
        capacity: number of entries.

    Returns:
        int [N]; `capacity` for items that are not stored.
    """
    order = seen + jnp.cumsum(mask) - mask
    drawn = jax.random.randint(key, order.shape, 0, order + 1)
    indices = jnp.where(order < capacity, order, drawn)
    return jnp.where(mask > 0, jnp.minimum(indices, capacity), capacity)


def ring_indices(
    first: jax.Array, length: jax.Array, seen: jax.Array, mask: jax.Array
) -> jax.Array:
    """Return the entries of consecutive items in a ring of entries first .. first + length, int
    [N].

    Args:
        first, length: the ring, int [].
        seen: number of items that came before, int [].
        mask: int [N], 1 for items, 0 for padding.
    """
    return first + (seen + jnp.cumsum(mask) - mask) % length


def put(
    buffer: Buffer, indices: jax.Array, items: Mapping[str, jax.Array], seen: jax.Array
) -> Buffer:
    """Write items into entries, one after another: the last of several in one entry counts.

    The arrays are changed in place where a program allows for it.

    Args:
        buffer: before.
        indices: int [N]; an index from the capacity on means that the item is not stored.
        items: arrays [N, ...] by name.
        seen: number of items offered, these included.
    """
    chex.assert_equal(set(items), set(buffer.items))
    count = indices.shape[0]
    # A scatter may write in any order, so an item that a later one overwrites is not written.
    later = jnp.arange(count)[:, None] < jnp.arange(count)
    overwritten = ((indices[:, None] == indices) & later).any(1)
    indices = jnp.where(overwritten, buffer.capacity, indices)
    written = {
        name: buffer.items[name].at[indices].set(item.astype(buffer.items[name].dtype), mode="drop")
        for name, item in items.items()
    }
    return Buffer(written, seen)


def add_to_reservoir(
    buffer: Buffer, key: jax.Array, items: Mapping[str, jax.Array], mask: jax.Array
) -> Buffer:
    """Offer items [N, ...] one after another, so that every item ever offered is equally likely
    stored.

    mask: [N], 1 for items, 0 for padding.
    """
    mask = mask.astype(jnp.int32)
    indices = reservoir_indices(key, buffer.seen, mask, buffer.capacity)
    return put(buffer, indices, items, buffer.seen + mask.sum(dtype=jnp.int32))


class Draw(NamedTuple):
    """Items drawn from a buffer.

    items: arrays [N, ...] by name. mask: float [N], 1 for items, 0 for padding. indices: int [N],
    entries of the buffer that they come from.
    """

    items: dict[str, jax.Array]
    mask: jax.Array
    indices: jax.Array


def draw(buffer: Buffer, key: jax.Array, count: int, filled: jax.Array | None = None) -> Draw:
    """Draw `count` different items uniformly; all of them where there are fewer.

    Args:
        buffer: to draw from.
        key: of the draw.
        count: number of items.
        filled: [capacity], 1 in entries that can be drawn; None: those that were ever filled.
    """
    capacity = buffer.capacity
    if filled is None:
        filled = jnp.arange(capacity) < buffer.filled
    bits = jax.random.bits(key, (capacity,), jnp.uint32) >> 1
    # The highest bit separates the entries that can be drawn from the others, which come last.
    ranks, indices = lax.top_k(
        jnp.where(filled, bits | np.uint32(1 << 31), bits), min(count, capacity)
    )
    items = {name: values[indices] for name, values in buffer.items.items()}
    return Draw(items, (ranks >> 31).astype(jnp.float32), indices)
