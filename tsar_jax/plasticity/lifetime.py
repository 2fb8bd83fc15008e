"""A lifetime: one update after another along a stream, as one scan."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Tree = Any
Update = Callable[[Tree, Tree], Tree]


def live(update: Update, params: Tree, stream: Tree, *, remat: bool = False) -> Tree:
    """Apply `update(params, moment) -> params` to each moment of a stream (leading axis: time).

    With `remat`, the backward pass stores the parameters only at about sqrt(T) of the T moments
    and recomputes the rest (Chen et al. 2016), so memory grows with sqrt(T) at the cost of one
    more forward pass.
    """
    length = jax.tree.leaves(stream)[0].shape[0]
    if not remat or length < 4:
        return _scan(update, params, stream)

    @jax.checkpoint
    def live_segment(params: Tree, moments: Tree) -> Tree:
        return _scan(jax.checkpoint(update), params, moments)

    return in_segments(live_segment, params, stream, math.isqrt(length - 1) + 1)


def in_segments(
    live_segment: Callable[[Tree, Tree], Tree], params: Tree, stream: Tree, segment: int
) -> Tree:
    """A lifetime as segments of `segment` moments and a shorter last one, each lived as told.

    live_segment(params, moments) -> params.
    """
    length = jax.tree.leaves(stream)[0].shape[0]
    segment = min(segment, length)
    segments = length // segment
    body = segments * segment
    head = jax.tree.map(lambda x: x[:body].reshape(segments, segment, *x.shape[1:]), stream)
    tail = jax.tree.map(lambda x: x[body:], stream)
    params = _scan(live_segment, params, head)
    return live_segment(params, tail) if body < length else params


def _scan(update: Update, params: Tree, stream: Tree) -> Tree:
    return lax.scan(lambda p, moment: (update(p, moment), None), params, stream)[0]


def sgd_update(
    loss: Callable[[Tree, Tree], jax.Array], rate: jax.Array | float, *, first_order: bool
) -> Update:
    """Gradient descent on loss(params, moment): p <- p - rate * dloss/dp.

    first_order: the gradients count as constants, so no gradient flows through them
    (Finn et al. 2017, section 5.2).
    """

    def update(params: Tree, moment: Tree) -> Tree:
        gradient = jax.grad(loss)(params, moment)
        if first_order:
            gradient = lax.stop_gradient(gradient)
        return jax.tree.map(lambda p, g: p - jnp.asarray(rate, p.dtype) * g, params, gradient)

    return update
