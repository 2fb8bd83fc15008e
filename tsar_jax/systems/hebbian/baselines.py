"""What policies without plasticity are made of: a recurrent network, standardised observations."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tsar_jax.networks.hebbian_network import forward
from tsar_jax.networks.types import LayerArrays
from tsar_jax.plasticity.learner import Learner

FARTHEST = 5.0
"""Largest absolute value of a standardised observation."""
SMALLEST_VARIANCE = 1e-4
"""Added to the variance, which is 0 at a lifetime's first step."""


def gru_learner(cell: nn.GRUCell, *, bounded: bool, gain: float) -> Learner:
    """Return a learner whose state is the memory of a gated recurrent unit (Cho et al. 2014).

    theta is {"cell": the cell's parameters, "layers": dense layers [out, in] from the memory to the
    outputs}, an example an input vector, and aux the outputs.

    Args:
        cell: Flax's cell.
        bounded: tanh on the outputs.
        gain: factor of the outputs.
    """

    def init(theta: dict[str, Any], key: Any = None) -> jax.Array:
        del key
        return jnp.zeros((cell.features,), theta["layers"][0].dtype)

    def outputs_of(layers: LayerArrays, memory: jax.Array) -> jax.Array:
        return gain * forward(layers, memory, bounded=bounded)[-1]

    def update(
        theta: dict[str, Any], memory: jax.Array, inputs: jax.Array, key: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        del key
        memory, _ = cell.apply({"params": theta["cell"]}, memory, inputs)
        return memory, outputs_of(theta["layers"], memory)

    def predict(theta: dict[str, Any], memory: jax.Array, inputs: jax.Array) -> jax.Array:
        return jax.vmap(lambda x: update(theta, memory, x)[1])(inputs)

    return Learner(init, update, predict)


class Standardised(NamedTuple):
    """A learner's state, and number [], mean [n] and squared deviations [n] of what it has seen."""

    state: Any
    number: jax.Array
    mean: jax.Array
    deviations: jax.Array


def standardise(learner: Learner, size: int) -> Learner:
    """Return a learner that sees each observation less the mean, over the standard deviation.

    Both are of the lifetime's observations so far, this one included (Welford 1962), so that
    nothing is shared between lifetimes.

    Args:
        learner: what sees them.
        size: length of an observation.
    """

    def init(theta: Any, key: Any) -> Standardised:
        zeros = jnp.zeros((size,))
        return Standardised(learner.init(theta, key), jnp.zeros(()), zeros, zeros)

    def see(before: Standardised, x: jax.Array) -> Standardised:
        number = before.number + 1
        mean = before.mean + (x - before.mean) / number
        deviations = before.deviations + (x - before.mean) * (x - mean)
        return Standardised(before.state, number, mean, deviations)

    def scaled(seen: Standardised, x: jax.Array) -> jax.Array:
        variance = seen.deviations / jnp.maximum(seen.number, 1)
        deviation = jnp.sqrt(variance + SMALLEST_VARIANCE)
        return jnp.clip((x - seen.mean) / deviation, -FARTHEST, FARTHEST)

    def update(
        theta: Any, before: Standardised, x: jax.Array, key: Any = None
    ) -> tuple[Standardised, jax.Array]:
        seen = see(before, x)
        state, aux = learner.update(theta, seen.state, scaled(seen, x), key)
        return seen._replace(state=state), aux

    def predict(theta: Any, seen: Standardised, inputs: jax.Array) -> jax.Array:
        return learner.predict(theta, seen.state, jax.vmap(lambda x: scaled(seen, x))(inputs))

    return Learner(init, update, predict)
