"""Herding (Welling 2009): items whose running mean stays as near as it can to that of all."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax


def herd(features: jax.Array, member: jax.Array, most: int, count: jax.Array) -> jax.Array:
    """The first `count` of a class's items in the order of iCaRL's algorithm 4: int32 [most].

    features [N, F], member bool [N]: who is of the class. The k-th is the one not yet chosen that
    minimises |mean - (its features + the sum of those chosen) / k|. Past `count`, or the class's
    size, numbers mean nothing.
    """
    chex.assert_rank(features, 2)
    chex.assert_shape(member, (features.shape[0],))
    mean = (features * member[:, None]).sum(0) / jnp.maximum(member.sum(), 1)
    squares = jnp.square(features).sum(1)

    def choose(k: jax.Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
        order, left, total = state
        # |(k + 1) mean - total - f|^2 without what is the same for all.
        wanted = (k + 1) * mean - total
        cost = squares - 2 * jnp.dot(features, wanted, precision="highest")
        best = jnp.where(left, cost, jnp.inf).argmin().astype(jnp.int32)
        return order.at[k].set(best), left.at[best].set(False), total + features[best]

    begin = (jnp.zeros(most, jnp.int32), member, jnp.zeros_like(mean))
    return lax.fori_loop(0, jnp.minimum(count, most), choose, begin)[0]
