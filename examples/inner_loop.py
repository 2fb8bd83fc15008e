"""Meta-learn the weights from which SGD learns a sine wave in ten examples (MAML)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import tsar_jax as tj

network = nn.Sequential([nn.Dense(40), nn.tanh, nn.Dense(40), nn.tanh, nn.Dense(1)])
theta, loss = network.init(jax.random.key(0), jnp.zeros((1, 1))), optax.squared_error
plastic = jax.tree.map(lambda _: True, theta)
learner = tj.gradient_learner(
    network.apply, plastic, optax.sgd(0.02), loss=lambda a, b: loss(a, b).mean()
)


def objective(theta, phase, key):
    """Learn ten examples of one wave, and return the loss on all of it."""
    x = jax.random.uniform(key, (10, 1), minval=-3, maxval=3)
    state, _ = tj.unroll(learner, theta, learner.init(theta, key), (x, jnp.sin(x + phase)))
    grid = jnp.linspace(-3, 3, 50)[:, None]
    return loss(learner.predict(theta, state, grid), jnp.sin(grid + phase)).mean(), {}


def estimate(theta, key):
    return tj.meta_gradient(objective, theta, jax.random.uniform(key, (16,), maxval=6.28), key)


keys = jax.random.split(jax.random.key(1), 1000)
_, history = tj.descend(estimate, theta, optax.adam(1e-3), keys)
print(
    f"loss after ten examples: {history.loss[:50].mean():.3f}, then {history.loss[-50:].mean():.3f}"
)
