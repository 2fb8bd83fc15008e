"""Meta-training in a single compiled program, without progress or checkpoints."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import lax

from tsar_jax.meta.gradient import Estimate, Tree


def descend(
    estimate: Callable[[Tree, jax.Array], Estimate],
    theta: Tree,
    optimiser: optax.GradientTransformation,
    keys: jax.Array,
) -> tuple[Tree, Estimate]:
    """Improve theta by one step for each key, in one compiled program.

    For trainings of minutes that need neither progress nor checkpoints.

    Args:
        estimate: (theta, key) -> Estimate, such as a call of `meta_gradient` or `es_gradient`.
        theta: initial meta-learned parameters.
        optimiser: optax transformation of the gradients, such as optax.adam(1e-3).
        keys: random keys [steps], one for each step.

    Returns:
        theta after the last step, and the estimates [steps, ...] without their gradients.
    """

    def step(carry: tuple[Tree, Any], key: jax.Array) -> tuple[tuple[Tree, Any], Estimate]:
        theta, state = carry
        estimated = estimate(theta, key)
        updates, state = optimiser.update(estimated.gradient, state, theta)
        return (optax.apply_updates(theta, updates), state), estimated._replace(gradient=())

    @jax.jit
    def run(theta: Tree, keys: jax.Array) -> tuple[Tree, Estimate]:
        (theta, _), history = lax.scan(step, (theta, optimiser.init(theta)), keys)
        return theta, history

    return run(theta, keys)
