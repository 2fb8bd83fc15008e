"""Episodic memory: a buffer of arrays of a fixed size, filled by a reservoir or as a ring."""

from collections.abc import Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Buffer(NamedTuple):
    """items: arrays [capacity, ...] by name, all zeros where never filled. seen: items offered."""

    items: dict[str, jax.Array]
    seen: jax.Array

    @property
    def capacity(self) -> int:
        return next(iter(self.items.values())).shape[0]

    @property
    def filled(self) -> jax.Array:
        """How many slots hold an item."""
        return jnp.minimum(self.seen, self.capacity)


def empty_buffer(capacity: int, like: Mapping[str, jax.ShapeDtypeStruct]) -> Buffer:
    """A buffer of zeros. like: shape and dtype of one item, by name."""
    items = {name: jnp.zeros((capacity, *item.shape), item.dtype) for name, item in like.items()}
    return Buffer(items, jnp.zeros((), jnp.int32))


def reservoir_slots(
    key: jax.Array, seen: jax.Array, present: jax.Array, capacity: int
) -> jax.Array:
    """Where reservoir sampling (Vitter 1985) puts items that come one after another.

    present [N]: 1 for items, 0 for what is none. seen: items that came before. Returns slots [N];
    `capacity` for those that find no place. Item t, counted from 0, takes slot t while there is
    room, then a random one of t + 1, if there is such a slot.
    """
    order = seen + jnp.cumsum(present) - present
    drawn = jax.random.randint(key, order.shape, 0, order + 1)
    slots = jnp.where(order < capacity, order, drawn)
    return jnp.where(present > 0, jnp.minimum(slots, capacity), capacity)


def ring_slots(
    first: jax.Array, length: jax.Array, seen: jax.Array, present: jax.Array
) -> jax.Array:
    """Slots [N] of items that come one after another to a ring of slots first .. + length.

    present [N]: 1 for items, 0 for what is none. seen: items that came before.
    """
    return first + (seen + jnp.cumsum(present) - present) % length


def put(
    buffer: Buffer, slots: jax.Array, items: Mapping[str, jax.Array], seen: jax.Array
) -> Buffer:
    """Writes items [N, ...] into slots [N], one after another: the last of several counts.

    Slots from the buffer's capacity on mean that the item is not kept. seen: items offered, these
    included. The arrays are changed in place where a program allows for it.
    """
    chex.assert_equal(set(items), set(buffer.items))
    count = slots.shape[0]
    # A scatter may write in any order, so whatever a later item overwrites is not written at all.
    later = jnp.arange(count)[:, None] < jnp.arange(count)
    overwritten = ((slots[:, None] == slots) & later).any(1)
    slots = jnp.where(overwritten, buffer.capacity, slots)
    written = {
        name: buffer.items[name].at[slots].set(item.astype(buffer.items[name].dtype), mode="drop")
        for name, item in items.items()
    }
    return Buffer(written, seen)


def add_to_reservoir(
    buffer: Buffer, key: jax.Array, items: Mapping[str, jax.Array], present: jax.Array
) -> Buffer:
    """Offers items [N, ...] one after another; every item ever offered is equally likely kept."""
    present = present.astype(jnp.int32)
    slots = reservoir_slots(key, buffer.seen, present, buffer.capacity)
    return put(buffer, slots, items, buffer.seen + present.sum(dtype=jnp.int32))


class Draw(NamedTuple):
    """items: arrays [N, ...] by name. present [N]: 1 where there is one. slots [N] they are in."""

    items: dict[str, jax.Array]
    present: jax.Array
    slots: jax.Array


def draw(buffer: Buffer, key: jax.Array, count: int, filled: jax.Array | None = None) -> Draw:
    """`count` different items, uniformly; as many as there are where there are fewer.

    filled [capacity]: 1 in slots that can be drawn; by default those that were ever filled.
    """
    capacity = buffer.capacity
    if filled is None:
        filled = jnp.arange(capacity) < buffer.filled
    bits = jax.random.bits(key, (capacity,), jnp.uint32) >> 1
    # The highest bit tells the slots that can be drawn from the others, which come last.
    ranks, slots = lax.top_k(
        jnp.where(filled, bits | np.uint32(1 << 31), bits), min(count, capacity)
    )
    items = {name: values[slots] for name, values in buffer.items.items()}
    return Draw(items, (ranks >> 31).astype(jnp.float32), slots)
