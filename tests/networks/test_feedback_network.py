"""The multilayer perceptron and the errors that travel back through it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tsar_jax.networks.feedback_network import (
    activities,
    errors,
    feedback_weights,
    init_weights,
    logits,
    output_error,
    softplus,
)

SIZES, BETA = (7, 6, 5, 4), 10.0


@pytest.fixture
def weights():
    return init_weights(jax.random.key(0), SIZES)


def test_weights_are_glorot_uniform() -> None:
    (layer,) = init_weights(jax.random.key(1), (300, 200))
    limit = np.sqrt(6 / 500)
    assert layer.shape == (200, 300)
    assert np.abs(layer).max() <= limit
    np.testing.assert_allclose(layer.std(), limit / np.sqrt(3), rtol=0.02)


def test_softplus_is_the_equation_and_finite_for_large_inputs() -> None:
    z = jnp.array([-0.3, 0.0, 0.2])
    np.testing.assert_allclose(softplus(z, BETA), np.log1p(np.exp(BETA * z)) / BETA, rtol=1e-5)
    np.testing.assert_allclose(softplus(jnp.array([50.0]), BETA), 50.0, rtol=1e-6)


def test_errors_through_the_forward_weights_are_backpropagated(weights) -> None:
    """The error of a layer is the loss's gradient with respect to its input."""
    image, label = jax.random.uniform(jax.random.key(2), (SIZES[0],)), 2

    def loss(offsets):
        layer = image
        for w, offset in zip(weights[:-1], offsets, strict=True):
            layer = softplus(w @ layer + offset, BETA)
        return optax.softmax_cross_entropy_with_integer_labels(weights[-1] @ layer, label)

    wanted = jax.grad(loss)([jnp.zeros(width) for width in SIZES[1:-1]])
    active = activities(weights, image, BETA)
    ours = errors(weights, active, output_error(active, label), BETA)
    assert [len(e) for e in ours] == list(SIZES)
    for a, b in zip(ours[1:-1], wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_the_last_activity_is_the_softmax_of_the_logits(weights) -> None:
    image = jnp.linspace(0, 1, SIZES[0])
    np.testing.assert_allclose(
        activities(weights, image, BETA)[-1],
        jax.nn.softmax(logits(weights, image, BETA)),
        rtol=1e-6,
    )


def test_feedback_weights(weights) -> None:
    random = init_weights(jax.random.key(3), SIZES)
    assert feedback_weights("fix", weights, random) is random
    for ours, w in zip(feedback_weights("sym", weights, ()), weights, strict=True):
        np.testing.assert_array_equal(ours, w)
    for ours, w, b in zip(feedback_weights("sign", weights, random), weights, random, strict=True):
        np.testing.assert_array_equal(jnp.sign(ours), jnp.sign(w))
        np.testing.assert_array_equal(jnp.abs(ours), jnp.abs(b))
