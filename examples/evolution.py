"""OpenAI-ES on a function of your own: a valley whose height is measured with noise."""

import jax
import jax.numpy as jnp
import optax

import tsar_jax as tj


def objective(theta, item, key):
    """Return the measured height of the valley at theta [2], and what else to record."""
    x, y = theta
    height = (1 - x) ** 2 + 10 * (y - x**2) ** 2
    return height + 0.1 * jax.random.normal(key), {"height": height}


def generation(theta, key):
    """Estimate the gradient from 64 members, each of one lifetime."""
    return tj.es_gradient(objective, theta, jnp.zeros(1), key, population=64, sigma=0.1)


start, keys = jnp.array([-1.0, 1.0]), jax.random.split(jax.random.key(0), 400)
theta, history = tj.descend(generation, start, optax.adam(0.05), keys)
heights = history.metrics["height"].mean(1)
print(f"mean height of the members: {heights[0]:.2f}, then {heights[-1]:.2f} at {theta}")
