"""What is done to an evolved animal in its lifetime, to see whether its plasticity mends it."""

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
"""What a lifetime's key is folded with for the synapses that it loses. Far from the small numbers
that its weights at birth are drawn with: by one of those, the lowest weights would be lost."""


@dataclasses.dataclass(frozen=True)
class Lesion:
    """Times are steps of the lifetime, counted from 0; `NEVER` where nothing is done."""

    freeze_from: int = NEVER
    """Step from which on the weights stay as they are."""
    saturate: tuple[int, int] = (NEVER, NEVER)
    """From the first step to before the second, every actuator is driven at 1, whatever the network
    says; its plasticity still sees what it said itself."""
    zero_at: int = NEVER
    """Step before which part of the synapses of every layer are set to zero."""
    zeroed: float = 1 / 3
    """Probability of each synapse to be among them."""

    def __post_init__(self) -> None:
        if not 0 <= self.zeroed <= 1:
            raise UserError(f"zeroed must be a share of 0 to 1, but is {self.zeroed}.")
        first, end = self.saturate
        if first > end:
            raise UserError(f"saturate must end after it begins, but is {first} to {end}.")


def lesioned(policy: Policy, lesion: Lesion) -> Policy:
    """The same policy in a lifetime with a lesion.

    Its weights are a tuple of the policy's own, the time and a key, which say what is due.
    """

    own = policy.learner

    def init(genome: Any, key: jax.Array) -> Any:
        own_key = jax.random.fold_in(key, LOSS)
        return own.init(genome, key), jnp.zeros((), jnp.int32), jax.random.key_data(own_key)

    def update(genome: Any, state: Any, observation: jax.Array, key: Any = None) -> Any:
        weights, time, own_key = state
        weights = lax.cond(
            time == lesion.zero_at, lambda: _zero(weights, own_key, lesion.zeroed), lambda: weights
        )
        learned, outputs = own.update(genome, weights, observation, key)
        frozen = (lesion.freeze_from != NEVER) & (time >= lesion.freeze_from)
        weights = jax.tree.map(lambda old, new: jnp.where(frozen, old, new), weights, learned)
        saturated = (lesion.saturate[0] <= time) & (time < lesion.saturate[1])
        return (weights, time + 1, own_key), jnp.where(saturated, 1.0, outputs)

    def predict(genome: Any, state: Any, observations: jax.Array) -> jax.Array:
        return own.predict(genome, state[0], observations)

    return policy._replace(learner=Learner(init, update, predict))


def _zero(weights: Any, key_data: jax.Array, share: float) -> Any:
    """Weights with a share of every layer's synapses, chosen at random, set to zero."""
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(jax.random.wrap_key_data(key_data), len(leaves))
    zeroed = [
        jnp.where(jax.random.bernoulli(key, share, leaf.shape), 0.0, leaf)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, zeroed)
