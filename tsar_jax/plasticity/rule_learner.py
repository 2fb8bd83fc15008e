"""The learner of a local plasticity rule: one image, one change of every layer's weights.

An update is of low rank, so the backward pass reverts it from the weights that it led to, instead
of storing the weights before it. This makes the meta-gradient affordable.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import UserError, check_known
from tsar_jax.networks.feedback_network import (
    Feedback,
    activities,
    errors,
    feedback_weights,
    init_weights,
    logits,
    output_error,
)
from tsar_jax.networks.types import LayerArrays
from tsar_jax.plasticity.learner import Inverse, Learner
from tsar_jax.plasticity.rules import (
    Change,
    Synapses,
    Term,
    apply_change,
    change,
    invert_change,
)

Examples = tuple[jax.Array, jax.Array]
"""Images [T, pixels] and labels [T]; a single example has no T."""


class Rule(NamedTuple):
    """The static part of a rule: its terms, and the feedback network it acts in."""

    terms: tuple[Term, ...]
    feedback: Feedback = "fix"
    beta: float = 10.0


class RuleTheta(NamedTuple):
    """The constants of a lifetime under a rule.

    coefficients: [terms], shared by the layers, or [layers, terms]; meta-learned. feedback_weights:
    random arrays shaped as the weights, drawn for the lifetime; () where feedback is "sym".
    """

    coefficients: jax.Array
    feedback_weights: LayerArrays


def rule_changes(
    rule: Rule, theta: RuleTheta, weights: LayerArrays, image: jax.Array, label: jax.Array
) -> tuple[Change, ...]:
    """Return each layer's change of weights after one image [pixels] and its label.

    No gradient reaches the feedback weights.
    """
    random_weights = lax.stop_gradient(theta.feedback_weights)
    coefficients = jnp.broadcast_to(theta.coefficients, (len(weights), len(rule.terms)))
    active = activities(weights, image, rule.beta)
    feedback = feedback_weights(rule.feedback, weights, random_weights)
    error = errors(feedback, active, output_error(active, label), rule.beta)
    return tuple(
        change(
            rule.terms,
            coefficients[layer],
            Synapses(w, active[layer], active[layer + 1], error[layer], error[layer + 1]),
        )
        for layer, w in enumerate(weights)
    )


def rule_learner(rule: Rule, sizes: Sequence[int]) -> Learner:
    """Return the learner of a rule in a perceptron: theta a `RuleTheta`, state the weights.

    An example is (image [pixels], label). Updates have no aux. Rules none of whose terms is a whole
    matrix can be inverted.

    Args:
        sizes: units of each layer, the input's first.

    Raises:
        UserError: there is no such feedback, or fewer than two layers.
    """
    check_known("feedback", rule.feedback, get_args(Feedback))
    if len(sizes) < 2:
        raise UserError(f"sizes must be those of at least two layers, but are {tuple(sizes)}.")

    def init(theta: RuleTheta, key: jax.Array) -> LayerArrays:
        del theta
        return init_weights(key, sizes)

    def propose(
        theta: RuleTheta, weights: LayerArrays, example: Examples, key: Any = None
    ) -> tuple[Change, ...]:
        del key
        return rule_changes(rule, theta, weights, *example)

    def update(
        theta: RuleTheta, weights: LayerArrays, example: Examples, key: Any = None
    ) -> tuple[LayerArrays, tuple[()]]:
        return apply_changes(weights, propose(theta, weights, example, key)), ()

    def predict(theta: RuleTheta, weights: LayerArrays, images: jax.Array) -> jax.Array:
        del theta
        return jax.vmap(lambda image: logits(weights, image, rule.beta))(images)

    inverse = None
    if is_low_rank(rule, sizes):
        inverse = Inverse(
            propose, apply_changes, invert_changes, change_gradients, weight_gradients
        )
    return Learner(init, update, predict, inverse)


def layer_sizes(weights: LayerArrays) -> tuple[int, ...]:
    """Return the units of each layer, the input's first, of weights [out, in]."""
    return (weights[0].shape[1], *(w.shape[0] for w in weights))


def is_low_rank(rule: Rule, sizes: Sequence[int]) -> bool:
    """Return whether no term of a rule is a whole matrix."""

    def example_changes(key: jax.Array) -> tuple[Change, ...]:
        weights = init_weights(key, sizes)
        theta = RuleTheta(jnp.zeros(len(rule.terms)), () if rule.feedback == "sym" else weights)
        return rule_changes(rule, theta, weights, jnp.zeros(sizes[0]), jnp.int32(0))

    shapes = jax.eval_shape(example_changes, jax.random.key(0))
    return all(changed.dense is None for changed in shapes)


def apply_changes(weights: LayerArrays, changes: tuple[Change, ...]) -> LayerArrays:
    """Return every layer's weights after its change."""
    return tuple(map(apply_change, weights, changes))


def invert_changes(weights: LayerArrays, changes: tuple[Change, ...]) -> LayerArrays:
    """Return every layer's weights before the change that led to them."""
    return tuple(map(invert_change, weights, changes))


def change_gradients(
    gradient: LayerArrays, weights: LayerArrays, changes: tuple[Change, ...]
) -> tuple[Change, ...]:
    """Return the gradient with respect to changes from that with respect to the weights after."""
    return tuple(map(_change_gradient, gradient, weights, changes))


def weight_gradients(
    gradient: LayerArrays,
    changes: tuple[Change, ...],
    of_changes: tuple[Change, ...],
    through_changes: LayerArrays,
) -> LayerArrays:
    """Return the gradient with respect to the weights before changes; see `Inverse`."""
    return tuple(map(_weight_gradient, gradient, changes, through_changes, of_changes))


def _change_gradient(gradient: jax.Array, weights: jax.Array, changed: Change) -> Change:
    chex.assert_equal_shape([gradient, weights])
    return Change(
        tuple(gradient @ pre for pre in changed.pre),
        tuple(post @ gradient for post in changed.post),
        None if changed.decay is None else -(gradient * weights).sum(),
    )


def _weight_gradient(
    gradient: jax.Array, changed: Change, through_change: jax.Array, of_change: Change
) -> jax.Array:
    direct = gradient if changed.decay is None else (1 - changed.decay) * gradient
    # This adds 0, but shows XLA that the old gradient was read before it is overwritten, so that
    # it does not copy it first: an eighth of the whole backward pass on a CPU.
    after_reading = 0 * sum(vector[0] for vector in (*of_change.post, *of_change.pre))
    return direct + (through_change + after_reading)
