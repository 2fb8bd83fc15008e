"""Herding (Welling 2009): items whose running mean stays as near as it can to the mean of all."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax


def herd(features: jax.Array, member: jax.Array, max_count: int, count: jax.Array) -> jax.Array:
    """Return the first `count` of a class's items in the order of iCaRL's algorithm 4.

    The k-th is the one not yet chosen that minimises |mean - (its features + the sum of those
    chosen) / k|.

    Args:
        features: float [N, F].
        member: bool [N], True for items of the class.
        max_count: length of the result.
        count: number of items wanted, int [].

    Returns:
        int32 [max_count]; numbers past `count`, or past the class's size, mean nothing.
    """
    chex.assert_rank(features, 2)
    chex.assert_shape(member, (features.shape[0],))
    mean = (features * member[:, None]).sum(0) / jnp.maximum(member.sum(), 1)
    squares = jnp.square(features).sum(1)

    def choose(k: jax.Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
        order, remaining, total = state
        # |(k + 1) mean - total - f|^2 without the terms that are the same for all items.
        target = (k + 1) * mean - total
        cost = squares - 2 * jnp.dot(features, target, precision="highest")
        best = jnp.where(remaining, cost, jnp.inf).argmin().astype(jnp.int32)
        return order.at[k].set(best), remaining.at[best].set(False), total + features[best]

    init = (jnp.zeros(max_count, jnp.int32), member, jnp.zeros_like(mean))
    return lax.fori_loop(0, jnp.minimum(count, max_count), choose, init)[0]
