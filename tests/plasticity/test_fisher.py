"""Fisher information in closed form against one image at a time, and what is made of it."""

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.networks.classifier import Variables
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.plasticity.averages import average, effective_alpha
from tsar_jax.plasticity.fisher import filter_means, weighted_distance


def test_the_closed_form_is_the_mean_of_squared_gradients() -> None:
    net = make_mlp((3, 3, 1), 4, hidden=(6, 5))
    variables = net.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (7, 3, 3, 1))
    labels = jnp.array([0, 1, 2, 3, 0, 0, 2])

    def log_probability(params, image, label):
        return jax.nn.log_softmax(net.logits(Variables(params, {}), image[None])[0])[label]

    @jax.jit
    def one_by_one(params):
        value, gradient = jax.vmap(jax.value_and_grad(log_probability), (None, 0, 0))(
            params, images, labels
        )
        weight = jnp.exp(value) / labels.size
        return jax.tree.map(lambda g: jnp.tensordot(weight, g**2, 1), gradient)

    ours, _ = net.fisher(variables, images, labels)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-9),
        ours,
        one_by_one(variables.params),
    )


def test_filters_get_their_mean_and_the_rest_its_own() -> None:
    tree = {"conv": jnp.arange(24.0).reshape(2, 2, 3, 2), "dense": jnp.arange(6.0).reshape(2, 3)}
    means = filter_means(tree)
    assert np.array_equal(means["dense"], tree["dense"])
    for out in range(2):
        assert np.allclose(means["conv"][..., out], tree["conv"][..., out].mean())


def test_a_distance_is_weighted_by_importance() -> None:
    one = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])}
    zero = jax.tree.map(jnp.zeros_like, one)
    importance = {"a": jnp.array([1.0, 10.0]), "b": jnp.array([0.0])}
    assert float(weighted_distance(importance, one, zero)) == 41


def test_an_average_is_a_plain_mean_at_first() -> None:
    """min(1 - 1/(t+1), a) makes the mean of the start and what came, until a is smaller."""
    values = [4.0, 1.0, 7.0, 2.0]
    state = jnp.float32(values[0])
    for step, value in enumerate(values[1:], 1):
        state = average(state, jnp.float32(value), effective_alpha(jnp.int32(step), 0.99))
    assert np.isclose(state, np.mean(values))
    assert np.isclose(effective_alpha(jnp.int32(1000), 0.9), 0.9)
