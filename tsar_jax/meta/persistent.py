"""Persistent evolution strategies: evolution by parts of lifetimes.

Vicol, Metz and Sohl-Dickstein (2021), arXiv 2112.13835. A lifetime goes on over several estimates,
each of which sees a part of it; because the noise of all parts so far is summed, the estimates are
unbiased for the whole, where those of a truncated lifetime are not.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tsar_jax.devices import map_over, on_all_devices
from tsar_jax.finite import all_finite, finite_mean
from tsar_jax.meta.evolution import check_population, lifetime_key, perturb
from tsar_jax.meta.gradient import Estimate, Tree


class Parts(NamedTuple):
    """A lifetime in parts.

    number: of parts, at least 1.
    init: (theta, key) -> the lifetime's state before the first part.
    advance: (theta, state, number of the part, key) -> (state after it, the part's loss, metrics);
        the key is init's in all parts.
    """

    number: int
    init: Callable[[Tree, jax.Array], Tree]
    advance: Callable[
        [Tree, Tree, jax.Array, jax.Array], tuple[Tree, jax.Array, dict[str, jax.Array]]
    ]


class PersistentState(NamedTuple):
    """Lifetimes under way.

    states: of each member's lifetime, [population, ...]. noise: sum of each pair's noise over the
    parts so far, of theta's structure, [pairs, ...]. key: of the lifetimes' randomness, its data.
    part: number of the next part, int32 [].
    """

    states: Tree
    noise: Tree
    key: jax.Array
    part: jax.Array


def init_persistent(
    init: Callable[[Tree, jax.Array], Tree], theta: Tree, key: jax.Array, population: int
) -> PersistentState:
    """Return the state before the first part of the first lifetimes, zero but for the key.

    Args:
        init: of `Parts`.
        theta: meta-learned parameters.
        key: any, of the kind that `pes_gradient` is given.
        population: number of members, even.

    Raises:
        UserError: the population is odd, or below 2.
    """
    check_population(population)

    def zeros(tree: Tree, count: int) -> Tree:
        return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), tree)

    state = jax.eval_shape(init, theta, key)
    return PersistentState(
        zeros(state, population),
        zeros(theta, population // 2),
        jax.random.key_data(key),
        jnp.zeros((), jnp.int32),
    )


def pes_gradient(
    parts: Parts,
    theta: Tree,
    state: PersistentState,
    key: jax.Array,
    *,
    population: int,
    sigma: jax.Array | float,
) -> tuple[Estimate, PersistentState]:
    """Estimate the gradient of a lifetime's summed loss from the next part of a population's.

    1 / (n sigma^2) sum_k xi_k L_k, where xi_k is the sum of member k's noise over the parts so far.
    Summed over a lifetime's parts it is the gradient of the smoothed sum of losses in expectation.
    Both members of a pair have opposite noise and the same randomness. After the last part all
    lifetimes begin anew.

    Args:
        parts: the lifetime.
        theta: meta-learned parameters.
        state: the lifetimes under way.
        key: of the noise and, where lifetimes begin, of their randomness.
        population: number of members, even.
        sigma: standard deviation of the noise.

    Returns:
        The mean of the part's finite losses, the gradient, and the metrics of each member
        [population]; and the state after the part. A member that diverges keeps the state before
        it, and its pair has no part in the gradient.
    """
    begins = state.part == 0
    noise_key, lifetimes = jax.random.split(key)
    root = jnp.where(begins, jax.random.key_data(lifetimes), state.key)

    def advance_pair(item: Tree, shared: Tree) -> Tree:
        pair, states, summed = item
        theta, root, part = shared
        own_key = lifetime_key(jax.random.wrap_key_data(root), pair)
        zero = jax.tree.map(jnp.zeros_like, theta)
        noise = perturb(zero, noise_key, sigma, 2 * pair)
        summed = jax.tree.map(lambda old, new: jnp.where(begins, 0, old) + new, summed, noise)

        def advance(sign: jax.Array, member_state: Tree) -> Tree:
            moved = jax.tree.map(lambda centre, eps: centre + sign * eps, theta, noise)
            first = parts.init(moved, own_key)
            before = jax.tree.map(partial(jnp.where, begins), first, member_state)
            after, loss, metrics = parts.advance(moved, before, part, own_key)
            sound = jnp.isfinite(loss) & all_finite(after)
            after = jax.tree.map(partial(jnp.where, sound), after, before)
            return after, jnp.where(sound, loss, jnp.nan), metrics

        advanced, losses, metrics = jax.vmap(advance)(jnp.array([1.0, -1.0]), states)
        return advanced, summed, losses, metrics

    pairs = population // 2
    by_pair = jax.tree.map(lambda leaf: leaf.reshape(pairs, 2, *leaf.shape[1:]), state.states)
    # Gathered before anything is summed, so that sums do not depend on the number of devices.
    advanced, summed, losses, metrics = on_all_devices(
        map_over(advance_pair, pairs)(
            (jnp.arange(pairs), by_pair, state.noise), (theta, root, state.part)
        )
    )
    difference = losses[:, 0] - losses[:, 1]
    # A pair of which a lifetime diverges tells nothing of the direction.
    weights = jnp.where(jnp.isfinite(difference), difference, 0) / (population * sigma**2)
    gradient = jax.tree.map(lambda xi: jnp.tensordot(weights, xi, 1), summed)
    joined = jax.tree.map(lambda leaf: leaf.reshape(population, *leaf.shape[2:]), advanced)
    part = (state.part + 1) % parts.number
    estimate = Estimate(finite_mean(losses.ravel()), gradient, jax.tree.map(jnp.ravel, metrics))
    return estimate, PersistentState(joined, summed, root, part)
