"""A multilayer perceptron of ReLUs as a `Classifier`, its Fisher information in closed form."""

import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tsar_jax.networks.classifier import Classifier, Tree, Variables


def make_mlp(
    image_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...] = (100, 100)
) -> Classifier:
    """Return dense layers over flattened images: Glorot uniform weights, biases 0, ReLU between
    layers.

    params: {"layer_0": {"kernel" [in, out], "bias" [out]}, ...}. There is no batch norm, so `train`
    ignores its mask.
    """
    sizes = (math.prod(image_shape), *hidden, classes)
    glorot = nn.initializers.glorot_uniform()

    def init(key: jax.Array) -> Variables:
        keys = jax.random.split(key, len(sizes) - 1)
        params = {
            f"layer_{index}": {"kernel": glorot(key, shape), "bias": jnp.zeros(shape[1])}
            for index, (key, shape) in enumerate(zip(keys, itertools.pairwise(sizes), strict=True))
        }
        return Variables(params, {})

    def logits(variables: Variables, images: jax.Array) -> jax.Array:
        return _activities(variables.params, images)[-1]

    def features(variables: Variables, images: jax.Array) -> jax.Array:
        return _activities(variables.params, images)[-2]

    def train(variables: Variables, images: jax.Array, mask: object = None) -> tuple[Any, ...]:
        return logits(variables, images), {}

    def fisher(variables: Variables, images: jax.Array, labels: jax.Array) -> tuple[Tree, Tree]:
        return mlp_fisher(variables.params, images, labels), {}

    return Classifier(init, train, logits, features, fisher)


def _activities(params: Tree, images: jax.Array) -> list[jax.Array]:
    """Return every layer's inputs, and the logits: arrays [N, size]."""
    active = [images.reshape(images.shape[0], -1)]
    for index in range(len(params)):
        layer = params[f"layer_{index}"]
        x = active[-1] @ layer["kernel"] + layer["bias"]
        active.append(x if index == len(params) - 1 else nn.relu(x))
    return active


def mlp_fisher(params: Tree, images: jax.Array, labels: jax.Array) -> Tree:
    """Return for each parameter the mean over images of p(y|x) (d log p(y|x) / d theta)^2.

    An image's gradient of a kernel is the outer product of the layer's input and the gradient of
    its output, so its square is that of their squares, and the mean over images one product of
    matrices.

    Args:
        params: of `make_mlp`.
        images: [N, ...].
        labels: int [N].
    """
    active = _activities(params, images)
    probability = jax.nn.softmax(active[-1])
    target = jax.nn.one_hot(labels, probability.shape[-1], dtype=probability.dtype)
    likelihood = (probability * target).sum(-1, keepdims=True) / images.shape[0]
    gradient = target - probability
    importance = {}
    for index in reversed(range(len(params))):
        entered = active[index]
        weighted = likelihood * jnp.square(gradient)
        importance[f"layer_{index}"] = {
            "kernel": jnp.square(entered).T @ weighted,
            "bias": weighted.sum(0),
        }
        if index:
            gradient = (gradient @ params[f"layer_{index}"]["kernel"].T) * (entered > 0)
    return importance
