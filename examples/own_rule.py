"""Meta-learn how much of a plasticity rule of your own a network should follow."""

import jax
import jax.numpy as jnp
import optax

import tsar_jax as tj


@tj.term("signed_error")
def signed_error(s):
    return tj.Outer(jnp.sign(s.post_error), s.pre, -1)


rule = tj.Rule(tj.find_terms(["pseudo_gradient", "signed_error"]))
learner = tj.rule_learner(rule, sizes=(16, 16, 4))


def objective(coefficients, labels, key):
    """Learn 60 inputs of 4 random classes, one by one, and return the loss on 40 others."""
    keys = jax.random.split(key, 4)
    inputs = (
        jax.random.uniform(keys[0], (4, 16))[labels] + jax.random.uniform(keys[1], (100, 16)) / 3
    )
    theta = tj.RuleTheta(coefficients, learner.init(None, keys[2]))
    stream = inputs[:60], labels[:60]
    weights, _ = tj.unroll(learner, theta, learner.init(theta, keys[3]), stream)
    logits = learner.predict(theta, weights, inputs[60:])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels[60:]).mean(), {}


def estimate(theta, key):
    return tj.meta_gradient(objective, theta, jax.random.randint(key, (8, 100), 0, 4), key)


start, keys = jnp.array([1e-3, 0.0]), jax.random.split(jax.random.key(0), 100)
theta, history = tj.descend(estimate, start, optax.adam(0.003), keys)
print(f"loss {history.loss[:5].mean():.2f}, then {history.loss[-5:].mean():.2f}: {theta}")
