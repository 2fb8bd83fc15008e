"""Gradients of what a lifetime leads to."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any
Objective = Callable[[Tree, Tree, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def meta_gradient(
    objective: Objective, theta: Tree, episodes: Tree, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array], Tree]:
    """Mean over episodes (leading axis) of loss, metrics and d loss / d theta.

    objective(theta, episode, key) -> (loss, metrics) lives one lifetime.
    """
    count = jax.tree.leaves(episodes)[0].shape[0]
    keys = jax.random.split(key, count)

    def mean_objective(theta: Tree) -> tuple[jax.Array, dict[str, jax.Array]]:
        if count == 1:  # an axis of one would cost copies
            return objective(theta, jax.tree.map(lambda leaf: leaf[0], episodes), keys[0])
        losses, metrics = jax.vmap(objective, (None, 0, 0))(theta, episodes, keys)
        return losses.mean(), jax.tree.map(jnp.mean, metrics)

    (loss, metrics), gradient = jax.value_and_grad(mean_objective, has_aux=True)(theta)
    return loss, metrics, gradient
