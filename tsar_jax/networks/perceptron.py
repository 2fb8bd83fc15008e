"""The perceptron of `feedback_network` as a `Classifier`, its Fisher information in closed form."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from tsar_jax.networks.classifier import Classifier, Tree, Variables
from tsar_jax.networks.feedback_network import activities, errors, init_weights, logits
from tsar_jax.networks.types import LayerArrays


def make_perceptron(sizes: Sequence[int], beta: float) -> Classifier:
    """Return the perceptron without biases over flattened images; params: its weights.

    There is no batch norm, so `train` ignores its mask.

    Args:
        sizes: units of each layer, the input's first.
        beta: sharpness of the softplus.
    """

    def classify(variables: Variables, images: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: logits(variables.params, row, beta))(_rows(images))

    def features(variables: Variables, images: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: activities(variables.params, row, beta)[-2])(_rows(images))

    def train(
        variables: Variables, images: jax.Array, mask: object = None
    ) -> tuple[jax.Array, Tree]:
        return classify(variables, images), {}

    def fisher(variables: Variables, images: jax.Array, labels: jax.Array) -> tuple[Tree, Tree]:
        return perceptron_fisher(variables.params, _rows(images), labels, beta), {}

    return Classifier(
        lambda key: Variables(init_weights(key, sizes), {}), train, classify, features, fisher
    )


def _rows(images: jax.Array) -> jax.Array:
    return images.reshape(images.shape[0], -1)


def perceptron_fisher(
    weights: LayerArrays, images: jax.Array, labels: jax.Array, beta: float
) -> LayerArrays:
    """Return for each weight the mean over images of p(y|x) (d log p(y|x) / d W)^2.

    An image's gradient of a layer is the outer product of its error and what entered the layer, so
    its square is that of their squares, and the mean over images one product of matrices.

    Args:
        weights: per layer [out, in].
        images: [N, pixels].
        labels: int [N]; -1 is no class, and its image adds nothing.
        beta: sharpness of the softplus.
    """

    def one(image: jax.Array, label: jax.Array) -> tuple[LayerArrays, LayerArrays]:
        """Return what entered each layer, squared; and p(y|x) times the squares of its error."""
        active = activities(weights, image, beta)
        target = jax.nn.one_hot(label, active[-1].size, dtype=active[-1].dtype)
        above = errors(weights[1:], active[1:], active[-1] - target, beta)
        probability = (active[-1] * target).sum()
        weighted = tuple(probability * jnp.square(error) for error in above)
        return tuple(map(jnp.square, active[:-1])), weighted

    entered, weighted = jax.vmap(one)(images, labels)
    return tuple(e.T @ x / len(images) for e, x in zip(weighted, entered, strict=True))
