"""The perceptron as a classifier: its importance is what the gradients of each image give."""

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.networks.feedback_network import logits
from tsar_jax.networks.perceptron import make_perceptron

SIZES, BETA = (6, 4, 5, 3), 1.5
KEY = jax.random.key(0)


def test_importance_is_the_mean_of_squared_gradients_under_the_likelihood() -> None:
    net = make_perceptron(SIZES, BETA)
    variables = net.init(KEY)
    images, labels = jax.random.normal(KEY, (5, 2, 3)), jnp.array([0, 2, 1, 2, -1])
    expected = [np.zeros(leaf.shape) for leaf in variables.params]
    for image, label in zip(images[:-1], labels[:-1], strict=True):

        def log_likelihood(weights, image=image, label=label):
            return jax.nn.log_softmax(logits(weights, image.ravel(), BETA))[label]

        value, gradient = jax.value_and_grad(log_likelihood)(variables.params)
        for total, leaf in zip(expected, gradient, strict=True):
            total += np.exp(value) * np.square(leaf) / len(images)
    importance, stats = net.fisher(variables, images, labels)
    assert stats == {}
    for found, wanted in zip(importance, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-8)


def test_logits_are_a_linear_layer_over_the_features() -> None:
    net = make_perceptron(SIZES, BETA)
    variables = net.init(KEY)
    images = jax.random.normal(KEY, (2, 6))
    features, (found, _) = net.features(variables, images), net.train(variables, images, None)
    assert features.shape == (2, 5)
    np.testing.assert_allclose(found, features @ variables.params[-1].T, rtol=1e-5)
    np.testing.assert_array_equal(found, net.logits(variables, images))
