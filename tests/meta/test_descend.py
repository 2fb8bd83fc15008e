"""The shortest meta-training is the plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tsar_jax.meta.descend import descend
from tsar_jax.meta.gradient import Estimate


def estimate(theta, key):
    noise = jax.random.normal(key, theta["a"].shape)
    loss, gradient = jax.value_and_grad(lambda t: jnp.square(t["a"] - 1 + 0.1 * noise).sum())(theta)
    return Estimate(loss, gradient, {"first": theta["a"][0]})


def test_it_is_the_plain_loop() -> None:
    start, keys = {"a": jnp.zeros(3)}, jax.random.split(jax.random.key(0), 4)
    optimiser = optax.adamw(0.1)  # which wants the parameters too
    found, history = descend(estimate, start, optimiser, keys)
    theta, state = start, optimiser.init(start)
    for index, key in enumerate(keys):
        here = estimate(theta, key)
        np.testing.assert_allclose(history.loss[index], here.loss, rtol=1e-5)
        np.testing.assert_allclose(history.metrics["first"][index], theta["a"][0], rtol=1e-5)
        updates, state = optimiser.update(here.gradient, state, theta)
        theta = optax.apply_updates(theta, updates)
    np.testing.assert_allclose(found["a"], theta["a"], rtol=1e-5)
    assert history.gradient == ()
