"""The perceptron of a composition, whose weights a learner changes.

Dense layers without biases, linear outputs. Hidden units are those of `networks.feedback_network`
(softplus) or of `networks.hebbian_network` (tanh). Weights are a tuple of arrays [out, in].
"""

from functools import partial

import jax

from tsar_jax.networks import feedback_network, hebbian_network
from tsar_jax.networks.types import LayerArrays
from tsar_jax.systems.compose.config import ComposeConfig


def draw_weights(config: ComposeConfig, key: jax.Array, sizes: tuple[int, ...]) -> LayerArrays:
    """Draw the weights of every layer by the initialiser that a config names."""
    if config.initial is None:
        return feedback_network.init_weights(key, sizes)
    initialise = hebbian_network.find_initialiser(config.initial)
    return hebbian_network.draw_layers(initialise, key, sizes)


def forward(config: ComposeConfig, weights: LayerArrays, features: jax.Array) -> LayerArrays:
    """Return the activities of every layer for one input, the features first, the outputs last."""
    if config.units == "tanh":
        return hebbian_network.forward(weights, features, bounded=False)
    hidden = feedback_network.activities(weights, features, config.beta)[:-1]
    return (*hidden, weights[-1] @ hidden[-1])


def predict(config: ComposeConfig, weights: LayerArrays, inputs: jax.Array) -> jax.Array:
    """Return the outputs [..., outputs] of inputs [..., features]."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    outputs = jax.vmap(partial(forward, config, weights))(rows)[-1]
    return outputs.reshape(*inputs.shape[:-1], -1)
