"""Meta-gradients: how what a lifetime leads to depends on what it was given."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Tree = Any
Objective = Callable[[Tree, Tree, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


class Estimate(NamedTuple):
    """What a meta-optimiser knows after a batch of lifetimes.

    loss: scalar, the mean over the batch; an optimiser descends it. gradient: of the loss, of
    theta's structure. metrics: what else the objective reports, means over the batch.
    """

    loss: jax.Array
    gradient: Tree
    metrics: dict[str, jax.Array]


def meta_gradient(objective: Objective, theta: Tree, batch: Tree, key: jax.Array) -> Estimate:
    """Estimate the gradient of a loss by backpropagation through lifetimes.

    Args:
        objective: (theta, item, key) -> (loss, metrics), which lives one lifetime.
        theta: what is meta-learned.
        batch: what each lifetime is given, a tree of arrays whose leading axis counts lifetimes.
        key: root of the lifetimes' randomness.
    """
    count = jax.tree.leaves(batch)[0].shape[0]
    keys = jax.random.split(key, count)

    def mean_objective(theta: Tree) -> tuple[jax.Array, dict[str, jax.Array]]:
        if count == 1:  # an axis of one would cost copies
            return objective(theta, jax.tree.map(lambda leaf: leaf[0], batch), keys[0])
        losses, metrics = jax.vmap(objective, (None, 0, 0))(theta, batch, keys)
        return losses.mean(), jax.tree.map(jnp.mean, metrics)

    (loss, metrics), gradient = jax.value_and_grad(mean_objective, has_aux=True)(theta)
    return Estimate(loss, gradient, metrics)
