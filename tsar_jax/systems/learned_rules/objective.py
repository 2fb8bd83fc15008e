"""The meta-objective of a learned rule: the loss after a lifetime under it, and its alignment."""

import jax
import jax.numpy as jnp

from tsar_jax.data.rule_episodes import RuleEpisode
from tsar_jax.networks import feedback_network
from tsar_jax.networks.feedback_network import activities, errors, output_error
from tsar_jax.networks.types import LayerArrays
from tsar_jax.plasticity.learner import Remat, unroll
from tsar_jax.plasticity.losses import accuracy, cross_entropy
from tsar_jax.plasticity.rule_learner import (
    Examples,
    Rule,
    RuleTheta,
    layer_sizes,
    rule_learner,
)

Metrics = dict[str, jax.Array]


def meta_objective(
    rule: Rule,
    theta: RuleTheta,
    weights: LayerArrays,
    lifetime: RuleEpisode,
    *,
    l1: float = 0.0,
    remat: Remat = "reconstruct",
    segment: int = 25,
) -> tuple[jax.Array, Metrics]:
    """Return the query set's cross-entropy after a lifetime + l1 |coefficients|, and metrics.

    Args:
        theta: coefficients, and feedback weights of the lifetime.
        weights: forward weights [out, in] of each layer before the lifetime.
        lifetime: the examples, and the query set.
        l1: weight of the coefficients' L1 norm.
        remat, segment: see `unroll`.

    Returns:
        The loss [], and "accuracy" [], "angle" [layers + 1] and "orthonormality" [layers], all on
        the query set after the lifetime: see `alignment`.
    """
    learner = rule_learner(rule, layer_sizes(weights))
    adapted, _ = unroll(learner, theta, weights, lifetime.examples, remat=remat, segment=segment)
    images, labels = lifetime.query
    logits = learner.predict(theta, adapted, images)
    loss = cross_entropy(logits, labels) + l1 * jnp.abs(theta.coefficients).sum()
    recorded = {
        "accuracy": accuracy(logits, labels),
        **alignment(rule, adapted, theta.feedback_weights, lifetime.query),
    }
    return loss, jax.lax.stop_gradient(recorded)


def alignment(
    rule: Rule, weights: LayerArrays, feedback_weights: LayerArrays, query: Examples
) -> Metrics:
    """Return the alignment of errors and of weights on a query set.

    Args:
        weights: forward weights [out, in] of each layer.
        feedback_weights: random weights shaped as these; () where feedback is "sym".
        query: images [N, pixels] and labels [N].

    Returns:
        "angle" [layers + 1], degrees in [0, 180], between the mean error sent back through the
        feedback weights and through the forward weights, the input layer first; and
        "orthonormality" [layers], E1 of Shervani-Tabar and Rosenbaum (2023),
        |y_{l-1} W_l' - (y_l W_l) W_l'|^2 summed over the query set.
    """

    def backpropagate(
        image: jax.Array, label: jax.Array
    ) -> tuple[LayerArrays, LayerArrays, LayerArrays]:
        """Return activities, errors through the feedback weights, and through the forward ones."""
        active = activities(weights, image, rule.beta)
        error = output_error(active, label)
        backward = feedback_network.feedback_weights(rule.feedback, weights, feedback_weights)
        fed_back = errors(backward, active, error, rule.beta)
        return active, fed_back, errors(weights, active, error, rule.beta)

    active, fed_back, true = jax.vmap(backpropagate)(*query)
    angles = [angle(a.mean(0), b.mean(0)) for a, b in zip(fed_back, true, strict=True)]
    deviations = [
        jnp.square((active[layer] - active[layer + 1] @ w) @ w.T).sum()
        for layer, w in enumerate(weights)
    ]
    return {"angle": jnp.stack(angles), "orthonormality": jnp.stack(deviations)}


def angle(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the angle between two vectors [n] in degrees, by Kahan's formula, exact near 0 too."""
    a, b = a * jnp.linalg.norm(b), b * jnp.linalg.norm(a)
    return jnp.rad2deg(2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b)))
