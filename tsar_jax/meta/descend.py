"""The shortest meta-training: one estimate after another, followed by an optax transformation."""

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
        theta: where to begin.
        optimiser: what becomes of a gradient, such as optax.adam(1e-3).
        keys: one for each step [steps].

    Returns:
        theta after the last step, and the estimates [steps, ...] without their gradients.
    """

    def step(carry: tuple[Tree, Any], key: jax.Array) -> tuple[tuple[Tree, Any], Estimate]:
        theta, state = carry
        found = estimate(theta, key)
        updates, state = optimiser.update(found.gradient, state, theta)
        return (optax.apply_updates(theta, updates), state), found._replace(gradient=())

    @jax.jit
    def run(theta: Tree, keys: jax.Array) -> tuple[Tree, Estimate]:
        (theta, _), history = lax.scan(step, (theta, optimiser.init(theta)), keys)
        return theta, history

    return run(theta, keys)
