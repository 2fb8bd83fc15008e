"""Lesions of an evolved agent in its lifetime, to test whether its plasticity makes up for them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import UserError
from tsar_jax.plasticity.learner import Learner
from tsar_jax.systems.hebbian.policy import Policy

NEVER = -1

LOSS = 2**31
"""Value that a lifetime's key is folded with for the synapses that it loses. It is far from the
small
numbers that initial weights are drawn with: by one of those, the lowest weights would be lost.
"""


@dataclasses.dataclass(frozen=True)
class Lesion:
    """Interventions in a lifetime. Times are steps, counted from 0; `NEVER` where nothing is done.

    Raises:
        UserError: zeroed or saturate is out of range.
    """

    freeze_from: int = NEVER
    """First step at which the weights no longer change."""
    saturate: tuple[int, int] = (NEVER, NEVER)
    """First step, and the step after the last, in which every actuator is driven at 1, whatever the
    network's outputs; its plasticity still sees its own outputs.
    """
    zero_at: int = NEVER
    """Step before which part of the synapses of every layer are set to zero."""
    zeroed: float = 1 / 3
    """Probability of each synapse to be set to zero, 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.zeroed <= 1:
            raise UserError(f"zeroed must be a share of 0 to 1, but is {self.zeroed}.")
        first, end = self.saturate
        if first > end:
            raise UserError(f"saturate must end after it begins, but is {first} to {end}.")


def lesioned(policy: Policy, lesion: Lesion) -> Policy:
    """Return the same policy in a lifetime with a lesion.

    The state of its learner is a tuple of the policy's own weights, the time and a key's data.
    """

    learner = policy.learner

    def init(genome: Any, key: jax.Array) -> Any:
        loss_key = jax.random.fold_in(key, LOSS)
        return learner.init(genome, key), jnp.zeros((), jnp.int32), jax.random.key_data(loss_key)

    def update(genome: Any, state: Any, observation: jax.Array, key: Any = None) -> Any:
        weights, time, loss_key = state
        weights = lax.cond(
            time == lesion.zero_at, lambda: _zero(weights, loss_key, lesion.zeroed), lambda: weights
        )
        updated, outputs = learner.update(genome, weights, observation, key)
        frozen = (lesion.freeze_from != NEVER) & (time >= lesion.freeze_from)
        weights = jax.tree.map(lambda old, new: jnp.where(frozen, old, new), weights, updated)
        saturated = (lesion.saturate[0] <= time) & (time < lesion.saturate[1])
        return (weights, time + 1, loss_key), jnp.where(saturated, 1.0, outputs)

    def predict(genome: Any, state: Any, observations: jax.Array) -> jax.Array:
        return learner.predict(genome, state[0], observations)

    return policy._replace(learner=Learner(init, update, predict))


def _zero(weights: Any, key_data: jax.Array, probability: float) -> Any:
    """Return weights with each synapse of every layer set to zero with a probability."""
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(jax.random.wrap_key_data(key_data), len(leaves))
    zeroed = [
        jnp.where(jax.random.bernoulli(key, probability, leaf.shape), 0.0, leaf)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, zeroed)
