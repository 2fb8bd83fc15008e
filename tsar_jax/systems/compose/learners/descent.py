"""Learners that descend the cross-entropy, with learning rates that can be meta-learned."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tsar_jax.plasticity.gradient_learner import GradientState, gradient_learner
from tsar_jax.plasticity.learner import Learner
from tsar_jax.plasticity.losses import cross_entropy
from tsar_jax.systems.compose.config import ComposeConfig, refuse_settings
from tsar_jax.systems.compose.learners.types import (
    LEARNERS,
    RATES,
    WEIGHTS,
    Component,
    Theta,
    need_labels,
)
from tsar_jax.systems.compose.networks import NETWORKS, PlasticNetwork


def _descent(
    name: str,
    direction: optax.GradientTransformation,
    config: ComposeConfig,
    sizes: tuple[int, ...],
    labelled: bool,
) -> Component:
    """Return the learner that descends the cross-entropy, with a learning rate for each layer.

    direction: transformation of the gradient, without a learning rate.
    """
    need_labels(name, labelled)
    refuse_settings(config, f"learner {name}", "distribution")
    network = NETWORKS.find(config.network).make(config, sizes)
    return Component(
        rated_init(config, network),
        rated_descent(config, network, network.predict, direction),
        lambda state: state.params,
        lambda state, weights: GradientState(weights, state.opt_state),
        (WEIGHTS, RATES),
        network=network,
        gated=rated_descent(config, network, network.predict_gated, direction),
    )


def rated_init(config: ComposeConfig, network: PlasticNetwork) -> Callable[[jax.Array], Theta]:
    """Return (key) -> theta of gradient descent: the weights, and each layer's learning rate."""

    def init(key: jax.Array) -> Theta:
        rates = jnp.full(len(network.layers), jnp.log(config.rate))
        return {WEIGHTS: network.init(key), RATES: rates}

    return init


def rated_descent(
    config: ComposeConfig,
    network: PlasticNetwork,
    predict: Callable[[Any, Any], jax.Array],
    direction: optax.GradientTransformation,
    loss: Callable[[jax.Array, Any], jax.Array] = cross_entropy,
) -> Learner:
    """Return gradient descent whose learning rates are a part of theta; aux are the outputs.

    theta["rates"] [layers] are natural logarithms of the rates, so that they stay positive.

    Args:
        network: whose weights are theta["weights"].
        predict: (weights, inputs) -> its logits.
        direction: transformation of the gradient, without a learning rate.
        loss: of logits and targets, to descend.
    """

    def learner_of(theta: Theta) -> Learner:
        def scale(updates: Any, _: Any) -> Any:
            return network.scale(updates, -jnp.exp(theta[RATES]))

        return gradient_learner(
            predict,
            network.plastic,
            optax.chain(direction, optax.stateless(scale)),
            loss=loss,
            first_order=config.order == "first",
            aux=lambda loss, outputs: outputs[0],
        )

    return Learner(
        lambda theta, key: learner_of(theta).init(theta[WEIGHTS], key),
        lambda theta, state, example, key: learner_of(theta).update(
            theta[WEIGHTS], state, example, key
        ),
        lambda theta, state, inputs: learner_of(theta).predict(theta[WEIGHTS], state, inputs),
    )


LEARNERS.register("sgd")(partial(_descent, "sgd", optax.identity()))
# Without eps_root the meta-gradient of a weight that has had no gradient yet is not a number.
ADAM = optax.scale_by_adam(eps_root=1e-8)
LEARNERS.register("adam")(partial(_descent, "adam", ADAM))
