"""A multilayer perceptron whose errors travel back through weights of their own.

Shervani-Tabar and Rosenbaum (2023), arXiv 2210.16414, methods. No biases; softplus of sharpness
beta; softmax over the last layer. Weights are a tuple of arrays [out, in], the input layer's first.
"""

from collections.abc import Sequence
from typing import Literal

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.networks.types import LayerArrays

Feedback = Literal["fix", "sym", "sign"]
"""Kind of the weights that errors travel back through. fix: random weights that stay (feedback
alignment, Lillicrap et al. 2016); sym: the current forward weights, as in backpropagation; sign:
the random weights with the signs of the forward ones (Moskovitz et al. 2018).
"""


def init_weights(key: jax.Array, sizes: Sequence[int]) -> LayerArrays:
    """Draw Glorot uniform weights: +-sqrt(6 / (in + out)). sizes: units of each layer, the
    input's first.
    """
    initialise = jax.nn.initializers.glorot_uniform(in_axis=1, out_axis=0)
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    keys = jax.random.split(key, len(shapes))
    return tuple(initialise(k, shape) for k, shape in zip(keys, shapes, strict=True))


def softplus(z: jax.Array, beta: float) -> jax.Array:
    """Return log(1 + exp(beta z)) / beta."""
    return jax.nn.softplus(beta * z) / beta


def logits(weights: LayerArrays, image: jax.Array, beta: float) -> jax.Array:
    """Return the logits [classes] of an image [pixels]."""
    return _hidden(weights, image, beta)[1]


def activities(weights: LayerArrays, image: jax.Array, beta: float) -> LayerArrays:
    """Return y_0, the image [pixels], to y_L, the softmax [classes]."""
    layers, last = _hidden(weights, image, beta)
    return (*layers, jax.nn.softmax(last))


def _hidden(weights: LayerArrays, image: jax.Array, beta: float) -> tuple[LayerArrays, jax.Array]:
    """Return the activities of the layers before the last, and the last one's logits."""
    chex.assert_shape(image, (weights[0].shape[1],))
    layers = [image]
    for layer in weights[:-1]:
        layers.append(softplus(layer @ layers[-1], beta))
    return tuple(layers), weights[-1] @ layers[-1]


def output_error(active: LayerArrays, label: jax.Array) -> jax.Array:
    """Return e_L = y_L - onehot(label) [classes]."""
    return active[-1] - jax.nn.one_hot(label, active[-1].size, dtype=active[-1].dtype)


def errors(
    feedback: LayerArrays, active: LayerArrays, error: jax.Array, beta: float
) -> LayerArrays:
    """Return e_0 to e_L: e_{l-1} = (e_l B_l) * (1 - exp(-beta y_{l-1})), the slope of softplus.

    Args:
        feedback: B_l, see `feedback_weights`.
        active: y_0 to y_L.
        error: e_L.
        beta: sharpness of the softplus.
    """
    reversed_errors = [error]
    for layer, below in zip(reversed(feedback), reversed(active[:-1]), strict=True):
        reversed_errors.append((reversed_errors[-1] @ layer) * -jnp.expm1(-beta * below))
    return tuple(reversed(reversed_errors))


def feedback_weights(
    kind: Feedback, weights: LayerArrays, random_weights: LayerArrays
) -> LayerArrays:
    """Return B_l, through which no gradient reaches the forward weights.

    random_weights: arrays shaped as the weights; empty where kind is sym.
    """
    if kind == "sym":
        return lax.stop_gradient(weights)
    if kind == "fix":
        return random_weights
    pairs = zip(random_weights, weights, strict=True)
    return tuple(lax.stop_gradient(jnp.abs(b) * jnp.sign(w)) for b, w in pairs)
