"""A lifetime under a local plasticity rule: one image, one change of every layer, 250 times over.

What makes its gradient affordable: an update is of low rank, so the backward pass takes it back
from the weights that it led to, instead of storing the weights before it.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.models.feedback_network import (
    Feedback,
    Layers,
    activities,
    errors,
    feedback_weights,
    output_error,
)
from tsar_jax.plasticity.lifetime import in_segments, live
from tsar_jax.plasticity.rules import (
    Change,
    Synapses,
    Term,
    apply_change,
    change,
    take_back,
)

Moments = tuple[jax.Array, jax.Array]
"""Images [T, pixels] and labels [T], in the order in which they are seen."""

Memory = Literal["reconstruct", "rematerialise", "store"]
"""How a lifetime's weights come back for its gradient: taken back update by update (what is stored
grows by vectors, not matrices); computed anew from about sqrt(T) stored ones; or stored, all T."""


class Rule(NamedTuple):
    """What is fixed about a rule: its terms, and the feedback network it acts in."""

    terms: tuple[Term, ...]
    feedback: Feedback = "fix"
    beta: float = 10.0


def changes(
    rule: Rule,
    coefficients: jax.Array,
    weights: Layers,
    random: Layers,
    image: jax.Array,
    label: jax.Array,
) -> tuple[Change, ...]:
    """What one image [pixels] does to each layer.

    coefficients [terms], shared by the layers, or [layers, terms]. random: the feedback weights'
    random part.
    """
    coefficients = jnp.broadcast_to(coefficients, (len(weights), len(rule.terms)))
    active = activities(weights, image, rule.beta)
    back = feedback_weights(rule.feedback, weights, random)
    error = errors(back, active, output_error(active, label), rule.beta)
    return tuple(
        change(
            rule.terms,
            coefficients[layer],
            Synapses(w, active[layer], active[layer + 1], error[layer], error[layer + 1]),
        )
        for layer, w in enumerate(weights)
    )


def adapt(
    rule: Rule,
    coefficients: jax.Array,
    weights: Layers,
    random: Layers,
    moments: Moments,
    *,
    memory: Memory = "reconstruct",
    segment: int = 25,
) -> Layers:
    """The weights after a lifetime of `moments`, differentiable in coefficients and weights.

    No gradient reaches the images or the random feedback weights. segment: updates between stored
    weights where memory is "reconstruct", which bounds by how much a decay can magnify rounding
    errors on the way back. A rule with terms that are whole matrices cannot be taken back: it is
    rematerialised.
    """
    moments, random = lax.stop_gradient((moments, random))

    def update(weights: Layers, moment: Moments) -> Layers:
        changed = changes(rule, coefficients, weights, random, *moment)
        return tuple(map(apply_change, weights, changed))

    if memory == "reconstruct" and is_low_rank(rule, coefficients, weights, random, moments):
        along = partial(_live_and_take_back, rule, coefficients, random)
        return in_segments(along, weights, moments, segment)
    return live(update, weights, moments, remat=memory != "store")


def is_low_rank(
    rule: Rule, coefficients: jax.Array, weights: Layers, random: Layers, moments: Moments
) -> bool:
    """Whether no term of a rule is a whole matrix."""
    moment = jax.tree.map(lambda leaf: leaf[0], moments)
    shapes = jax.eval_shape(partial(changes, rule), coefficients, weights, random, *moment)
    return all(changed.dense is None for changed in shapes)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _live_and_take_back(
    rule: Rule, coefficients: jax.Array, random: Layers, weights: Layers, moments: Moments
) -> Layers:
    return _forward(rule, coefficients, random, weights, moments)[0]


def _forward(
    rule: Rule, coefficients: jax.Array, random: Layers, weights: Layers, moments: Moments
) -> tuple[Layers, Any]:
    def step(weights: Layers, moment: Moments) -> tuple[Layers, tuple[Change, ...]]:
        changed = changes(rule, coefficients, weights, random, *moment)
        return tuple(map(apply_change, weights, changed)), changed

    end, lived = lax.scan(step, weights, moments)
    return end, (coefficients, random, end, moments, lived)


def _backward(rule: Rule, saved: Any, gradient: Layers) -> tuple[Any, ...]:
    """Backpropagation through time, with each moment's weights found from those after it."""
    coefficients, random, end, moments, lived = saved

    def step(carry: Any, seen: Any) -> tuple[Any, None]:
        after, gradient, of_coefficients = carry
        moment, changed = seen
        weights = tuple(map(take_back, after, changed))
        _, pull = jax.vjp(lambda c, w: changes(rule, c, w, random, *moment), coefficients, weights)
        toward = tuple(map(_toward_change, gradient, weights, changed))
        more_of_coefficients, through_signals = pull(toward)
        gradient = tuple(map(_past_change, gradient, changed, through_signals, toward))
        return (weights, gradient, of_coefficients + more_of_coefficients), None

    start = end, gradient, jnp.zeros_like(coefficients)
    (_, gradient, of_coefficients), _ = lax.scan(step, start, (moments, lived), reverse=True)
    return of_coefficients, None, gradient, None


_live_and_take_back.defvjp(_forward, _backward)


def _toward_change(gradient: jax.Array, weights: jax.Array, changed: Change) -> Change:
    """The gradient with respect to a change, from that with respect to the weights after it."""
    chex.assert_equal_shape([gradient, weights])
    return Change(
        tuple(gradient @ pre for pre in changed.pre),
        tuple(post @ gradient for post in changed.post),
        None if changed.decay is None else -(gradient * weights).sum(),
    )


def _past_change(
    gradient: jax.Array, changed: Change, through_signals: jax.Array, toward: Change
) -> jax.Array:
    """The gradient with respect to the weights before a change; toward: see `_toward_change`."""
    kept = gradient if changed.decay is None else (1 - changed.decay) * gradient
    # Nothing is added, but XLA sees that the old gradient was read before it is overwritten, and
    # does not copy it first: an eighth of the whole backward pass on a CPU.
    after_reading = 0 * sum(vector[0] for vector in (*toward.post, *toward.pre))
    return kept + (through_signals + after_reading)
