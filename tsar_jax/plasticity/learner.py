"""One interface for everything that changes within a lifetime, and the one loop over a stream."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import UserError, check_known

Tree = Any

Remat = Literal["store", "rematerialise", "reconstruct"]
"""Strategy by which the backward pass of `unroll` gets the states before each update.

store: keep all T of them. rematerialise: keep about sqrt(T) and recompute the others (Chen et al.
2016, arXiv 1604.06174). reconstruct: keep what each update added and invert the updates, where the
learner can.
"""


class Inverse(NamedTuple):
    """An update in two parts, of which the second can be undone: state' = apply(state, change).

    change: (theta, state, example, key) -> change, what an update adds; smaller than the state
    apply: (state, change) -> state after the update
    revert: (state after the update, change) -> state before it
    change_gradient: (gradient with respect to the state after, state before, change) -> gradient
        with respect to the change
    state_gradient: (gradient with respect to the state after, change, gradient with respect to the
        change, gradient that reaches the state before through the change) -> gradient with respect
        to the state before
    """

    change: Callable[[Tree, Tree, Tree, Any], Tree]
    apply: Callable[[Tree, Tree], Tree]
    revert: Callable[[Tree, Tree], Tree]
    change_gradient: Callable[[Tree, Tree, Tree], Tree]
    state_gradient: Callable[[Tree, Tree, Tree, Tree], Tree]


class Learner(NamedTuple):
    """Something that changes within a lifetime, as pure functions for one example.

    theta is constant in a lifetime: meta-learned parameters, and whatever is drawn for that
    lifetime alone. state changes: weights, an optimiser's state, a buffer.

    init: (theta, key) -> state before the first example
    update: (theta, state, example, key) -> (state, aux)
    predict: (theta, state, inputs) -> outputs for inputs [N, ...], without learning
    inverse: how `unroll` inverts updates, None where they cannot be inverted; code that replaces
        `update` must replace this too, or drop it
    """

    init: Callable[[Tree, Any], Tree]
    update: Callable[[Tree, Tree, Tree, Any], tuple[Tree, Tree]]
    predict: Callable[[Tree, Tree, Tree], Tree]
    inverse: Inverse | None = None


def adapt(
    learner: Learner,
    *,
    theta: Callable[[Tree], Tree] = lambda theta: theta,
    inputs: Callable[[Tree], Tree] = lambda inputs: inputs,
) -> Learner:
    """Return a learner that makes what it is given into what another one takes.

    Its state, aux and inverse are the other's.

    Args:
        learner: the other one, whose examples are pairs (inputs, target).
        theta: (theta) -> the other's theta.
        inputs: (inputs, of one example or of many [N, ...]) -> the other's inputs.
    """

    def example_of(example: Tree) -> Tree:
        own, target = example
        return inputs(own), target

    def update(given: Tree, state: Tree, example: Tree, key: Any = None) -> tuple[Tree, Tree]:
        return learner.update(theta(given), state, example_of(example), key)

    inverse = learner.inverse
    if inverse is not None:
        change = inverse.change
        inverse = inverse._replace(
            change=lambda given, state, example, key: change(
                theta(given), state, example_of(example), key
            )
        )

    def init(given: Tree, key: Any = None) -> Tree:
        return learner.init(theta(given), key)

    return Learner(
        init,
        update,
        lambda given, state, rows: learner.predict(theta(given), state, inputs(rows)),
        inverse,
    )


def unroll(
    learner: Learner,
    theta: Tree,
    state: Tree,
    examples: Tree,
    key: jax.Array | None = None,
    *,
    remat: Remat = "store",
    segment: int = 25,
) -> tuple[Tree, Tree]:
    """Run a learner along a stream, one update after another.

    Args:
        theta: what the learner is given; differentiable. Floating-point arrays only where updates
            are inverted.
        state: the learner's state before the first example; differentiable.
        examples: tree of arrays [T, ...], in the order in which they are seen; differentiable but
            with "reconstruct".
        key: root of the updates' randomness, the t-th having fold_in(key, t); None for a learner
            that draws nothing.
        remat: how the backward pass gets the states before each update. A learner without inverse
            is rematerialised where "reconstruct" is asked for.
        segment: with "reconstruct", updates between stored states: it bounds by how much an
            inverse can magnify rounding errors.

    Returns:
        The state after the last example, and aux of every update [T, ...], through which no
        gradient passes; () in place of aux where updates are inverted.

    Raises:
        UserError: remat is no strategy, or segment is below 1.
    """
    check_known("remat strategy", remat, get_args(Remat))
    if segment < 1:
        raise UserError(f"segment must be at least 1, but is {segment}.")
    length = jax.tree.leaves(examples)[0].shape[0]
    keys = None
    if key is not None:
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(length))
    stream = examples, keys

    if remat == "reconstruct" and learner.inverse is not None:
        inverse = learner.inverse

        def along(state: Tree, stream: Tree) -> tuple[Tree, Tree]:
            return _unroll_and_revert(inverse, theta, state, stream), ()

        return _in_segments(along, state, stream, min(segment, length))

    def step(state: Tree, item: Tree) -> tuple[Tree, Tree]:
        state, aux = learner.update(theta, state, *item)
        return state, lax.stop_gradient(aux)

    if remat == "store" or length < 4:
        return lax.scan(step, state, stream)
    recomputed = jax.checkpoint(step)

    @jax.checkpoint
    def recompute_segment(state: Tree, stream: Tree) -> tuple[Tree, Tree]:
        return lax.scan(recomputed, state, stream)

    return _in_segments(recompute_segment, state, stream, math.isqrt(length - 1) + 1)


def _in_segments(
    along: Callable[[Tree, Tree], tuple[Tree, Tree]], state: Tree, stream: Tree, segment: int
) -> tuple[Tree, Tree]:
    """Run along(state, part of the stream) -> (state, aux) over parts of `segment` examples.

    The last part is shorter where `segment` does not divide the stream.
    """
    length = jax.tree.leaves(stream)[0].shape[0]
    segments = length // segment
    body = segments * segment
    head = jax.tree.map(lambda x: x[:body].reshape(segments, segment, *x.shape[1:]), stream)
    state, aux = lax.scan(along, state, head)
    aux = jax.tree.map(lambda x: x.reshape(body, *x.shape[2:]), aux)
    if body == length:
        return state, aux
    state, last = along(state, jax.tree.map(lambda x: x[body:], stream))
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), aux, last)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _unroll_and_revert(inverse: Inverse, theta: Tree, state: Tree, stream: Tree) -> Tree:
    """Return the state after a stream; its backward pass reverts one update after another."""
    return _forward(inverse, theta, state, stream)[0]


def _forward(inverse: Inverse, theta: Tree, state: Tree, stream: Tree) -> tuple[Tree, Tree]:
    def step(state: Tree, item: Tree) -> tuple[Tree, Tree]:
        changed = inverse.change(theta, state, *item)
        return inverse.apply(state, changed), changed

    end, changes = lax.scan(step, state, stream)
    return end, (theta, end, stream, changes)


def _backward(inverse: Inverse, saved: Tree, gradient: Tree) -> tuple[Tree, Tree, None]:
    """Backpropagate through time, recovering each update's state from the one after it."""
    theta, end, stream, changes = saved

    def step(carry: Tree, item_and_change: Tree) -> tuple[Tree, None]:
        after, gradient, theta_gradient = carry
        item, changed = item_and_change
        state = inverse.revert(after, changed)
        _, pull = jax.vjp(lambda t, s: inverse.change(t, s, *item), theta, state)
        toward_change = inverse.change_gradient(gradient, state, changed)
        more, through_change = pull(toward_change)
        gradient = inverse.state_gradient(gradient, changed, toward_change, through_change)
        return (state, gradient, jax.tree.map(jnp.add, theta_gradient, more)), None

    start = end, gradient, jax.tree.map(jnp.zeros_like, theta)
    (_, gradient, theta_gradient), _ = lax.scan(step, start, (stream, changes), reverse=True)
    return theta_gradient, gradient, None


_unroll_and_revert.defvjp(_forward, _backward)
