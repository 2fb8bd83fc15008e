"""Meta-test: learn unseen classes one image after another, then be tested on all of them."""

from typing import Any

import jax
import optax
from jax import lax

from tsar_jax.models import Network, frozen_levels
from tsar_jax.plasticity.masks import combine, partition
from tsar_jax.systems.anml import cross_entropy, run_levels

Params = Any


def learn_stream(
    network: Network,
    params: Params,
    plastic: Params,
    images: jax.Array,
    labels: jax.Array,
    *,
    rate: jax.Array | float,
) -> tuple[Params, jax.Array]:
    """Learn images [T, H, W, C] by Adam, one at a time; parameters, and losses [T] before updates.

    plastic: tree of booleans like params, what learns.
    """
    depth = frozen_levels(network, plastic)
    signals = run_levels(network, params, images, 0, depth, 20)
    slow, frozen = partition(params, plastic)
    learned, losses = learn_signals(network, slow, frozen, depth, signals, labels, rate)
    return combine(learned, frozen), losses


def learn_signals(network, slow, frozen, depth, signals, labels, rate):
    optimiser = optax.adam(rate)

    def loss(learned, signal, label):
        logits = network.apply(
            {"params": combine(learned, frozen)},
            jax.tree.map(lambda s: s[None], signal),
            depth,
            method="run",
        )
        return cross_entropy(logits, label[None])

    def learn(carry, moment):
        learned, state = carry
        value, gradient = jax.value_and_grad(loss)(learned, *moment)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(learned, updates), state), value

    (learned, _), losses = lax.scan(learn, (slow, optimiser.init(slow)), (signals, labels))
    return learned, losses
