"""Meta-learn ANML's gate around a plasticity rule of your own: what it sees decides what learns."""

import jax
import jax.numpy as jnp
import optax

import tsar_jax as tj


@tj.term("error_times_input")
def error_times_input(s):
    return tj.Outer(s.post_error, s.pre, -0.1)


rule = tj.rule_learner(tj.Rule(tj.find_terms(["error_times_input"]), "sym"), sizes=(32, 8))
learner = tj.gate_activations(rule, lambda weights, seen: jax.nn.sigmoid(seen @ weights))
start = tj.Modulated(tj.RuleTheta(jnp.zeros(1), ()), jnp.zeros((8, 32)))


def objective(theta, classes, key):
    """Learn eight classes one after another, and return the loss on all of them."""
    codes = jax.nn.one_hot(classes, 8) + jax.random.normal(key, (80, 8)) / 4
    inputs = codes, jnp.tanh(codes @ jnp.sin(jnp.arange(256.0)).reshape(8, 32))
    state, _ = tj.unroll(learner, theta, learner.init(theta, key), (inputs, classes))
    logits = learner.predict(theta, state, inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, classes).mean(), {}


def estimate(theta, key):
    return tj.meta_gradient(objective, theta, jnp.repeat(jnp.arange(8), 10)[None], key)


theta, history = tj.descend(
    estimate, start, optax.adam(0.03), jax.random.split(jax.random.key(0), 150)
)
print(f"loss {history.loss[:5].mean():.2f}, then {history.loss[-5:].mean():.2f}")
