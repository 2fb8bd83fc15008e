"""Meta-train ANML on images of your own: to learn a class image by image and forget no other."""

import jax
import jax.numpy as jnp
import optax

import tsar_jax as tj
from tsar_jax.networks import ANML, frozen_stages, init_params, run_stages
from tsar_jax.plasticity.gradient_learner import network_learner
from tsar_jax.plasticity.masks import mask

noise = jax.random.normal(jax.random.key(0), (8, 10, 28, 28, 1))
images = noise / 2 + noise[:, :1, ::4, ::4].repeat(4, 2).repeat(4, 3)  # yours, of 8 classes
network = ANML(channels=8, gate_channels=4, classes=8)
start = init_params(network, jax.random.key(0))
plastic = mask(start, ("trunk", "head"))
depth = frozen_stages(network, plastic)  # the gate: it does not learn within a lifetime
learner = network_learner(network, plastic, depth, optax.sgd(0.1))


def objective(theta, own, key):
    """Learn five images of one class, one by one, and return the loss on them and on others."""
    labels = jnp.append(jnp.full(5, own), jax.random.randint(key, (16,), 0, 8))
    gated = run_stages(network, theta, images[labels, jnp.arange(21) % 10], 0, depth)
    stream = jax.tree.map(lambda leaf: leaf[:5], (gated, labels))
    state, _ = tj.unroll(learner, theta, learner.init(theta, key), stream)
    logits = learner.predict(theta, state, gated)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), {}


def estimate(theta, key):
    return tj.meta_gradient(objective, theta, jax.random.randint(key, (1,), 0, 8), key)


keys = jax.random.split(jax.random.key(1), 30)
theta, history = tj.descend(estimate, start, optax.adam(0.01), keys)
print(f"loss {history.loss[:5].mean():.2f}, then {history.loss[-5:].mean():.2f}")
