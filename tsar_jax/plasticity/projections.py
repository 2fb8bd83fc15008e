"""Projections of gradients that do not increase the losses of earlier tasks."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax

Tree = Any


PATIENCE = 3
"""Exchanges without progress after which block pivoting falls back to single exchanges."""
ROUNDING = 1e-6
"""Slope, relative to the largest linear coefficient, that counts as zero in 32 bits."""
RIDGE = 1e-3
"""Value added to the diagonal of GEM's quadratic programme, so that it has one solution."""


def inner_product(a: Tree, b: Tree) -> jax.Array:
    """Return the inner product of two trees of arrays, as of two vectors."""
    return jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, a, b))


def project(gradient: Tree, reference: Tree) -> Tree:
    """Return g - (g . r / r . r) r where g . r < 0, else g (Chaudhry et al. 2019, equation 11)."""
    along = inner_product(gradient, reference)
    length = inner_product(reference, reference)
    scale = jnp.where(along < 0, along / jnp.where(length > 0, length, 1), 0)
    return jax.tree.map(lambda g, r: g - scale * r, gradient, reference)


def project_into_cone(gradient: jax.Array, past: jax.Array, margin: float) -> jax.Array:
    """Return the vector nearest to g that harms no past task (Lopez-Paz, Ranzato 2017, equation
    11).

    If G g has a negative component: G'v + g, v minimising v'(GG' + ridge)v / 2 + (G g)'v, v >=
    margin.

    Args:
        gradient: g, float [P].
        past: G, gradients of past tasks, float [tasks, P]; rows of zeros constrain nothing.
        margin: least weight of a past task's gradient where there is a conflict.
    """
    chex.assert_shape(past, (None, gradient.size))
    quadratic = jnp.dot(past, past.T, precision="highest") + RIDGE * jnp.eye(past.shape[0])
    linear = jnp.dot(past, gradient, precision="highest")
    # With v = margin + u the constraint is u >= 0.
    excess = nonnegative_quadratic(quadratic, linear + margin * quadratic.sum(1))
    projected = gradient + (margin + excess) @ past
    return jnp.where((linear < 0).any(), projected, gradient)


def nonnegative_quadratic(
    quadratic: jax.Array, linear: jax.Array, iterations: int = 100
) -> jax.Array:
    """Return argmin over u >= 0 of u'Pu / 2 + q'u, float [n].

    Block principal pivoting (Judice, Pires 1994) solves for the components taken to be free, then
    exchanges those that are negative and those bound ones whose slope is; all of them while that
    makes them fewer, else the last one alone, which cannot go on for ever.

    Args:
        quadratic: P [n, n], positive definite.
        linear: q [n].
        iterations: most exchanges.
    """
    count = linear.size
    chex.assert_shape(quadratic, (count, count))
    rounding = ROUNDING * jnp.abs(linear).max()

    def solution(free: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return u, and which components are on the wrong side."""
        rows = jnp.where(free[:, None] & free, quadratic, jnp.eye(count))
        u = jnp.linalg.solve(rows, jnp.where(free, -linear, 0))
        slope = quadratic @ u + linear
        return u, jnp.where(free, u < 0, slope < -rounding)

    def exchange(state: tuple[Any, ...]) -> tuple[Any, ...]:
        step, free, best, left = state
        _, wrong = solution(free)
        fewer = wrong.sum() < best
        left = jnp.where(fewer, PATIENCE, left - 1)
        last = count - 1 - jnp.argmax(wrong[::-1])
        flipped = jnp.where(left >= 0, wrong, wrong & (jnp.arange(count) == last))
        return step + 1, free ^ flipped, jnp.minimum(best, wrong.sum()), left

    def unsolved(state: tuple[Any, ...]) -> jax.Array:
        step, free, _, _ = state
        return (step < iterations) & solution(free)[1].any()

    free = jnp.zeros(count, bool)
    init = (jnp.int32(0), free, jnp.int32(count + 1), jnp.int32(PATIENCE))
    _, free, _, _ = lax.while_loop(unsolved, exchange, init)
    return jnp.maximum(solution(free)[0], 0)
