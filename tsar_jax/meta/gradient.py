"""Meta-gradients: gradients of a loss after lifetimes with respect to meta-learned parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tsar_jax.devices import mean_over

Tree = Any
Objective = Callable[[Tree, Tree, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
"""(theta, item of a batch, key) -> (loss, metrics) of one lifetime."""


class Estimate(NamedTuple):
    """A loss and its gradient, estimated from a batch of lifetimes.

    loss: mean over the batch, []; an optimiser descends it. gradient: gradient of the loss, of
        theta's structure. metrics: the objective's metrics, means over the batch from
        `meta_gradient`, one of each member [population] from `es_gradient`.
    """

    loss: jax.Array
    gradient: Tree
    metrics: dict[str, jax.Array]


def meta_gradient(objective: Objective, theta: Tree, batch: Tree, key: jax.Array) -> Estimate:
    """Estimate the gradient of a loss by backpropagation through lifetimes.

    Several devices, where their number divides that of lifetimes, take as many lifetimes each; the
    order in which the gradients are added is then another.

    Args:
        objective: (theta, item, key) -> (loss, metrics) of one lifetime.
        theta: meta-learned parameters.
        batch: inputs of the lifetimes, a tree of arrays whose leading axis counts lifetimes.
        key: root of the lifetimes' randomness.
    """
    count = jax.tree.leaves(batch)[0].shape[0]
    keys = jax.random.split(key, count)

    def mean_objective(
        theta: Tree, batch: Tree, keys: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        if keys.shape[0] == 1:  # vmap over a single lifetime would copy arrays
            loss, metrics = objective(theta, jax.tree.map(lambda leaf: leaf[0], batch), keys[0])
            return loss, metrics if count == 1 else jax.tree.map(jnp.mean, metrics)
        losses, metrics = jax.vmap(objective, (None, 0, 0))(theta, batch, keys)
        return losses.mean(), jax.tree.map(jnp.mean, metrics)

    def mean_gradient(lifetimes: tuple[Tree, jax.Array], theta: Tree) -> Any:
        return jax.value_and_grad(mean_objective, has_aux=True)(theta, *lifetimes)

    (loss, metrics), gradient = mean_over(mean_gradient, count)((batch, keys), theta)
    return Estimate(loss, gradient, metrics)
