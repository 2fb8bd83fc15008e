"""Evolution strategies: what a population's losses say about the gradient.

Salimans et al. (2017), arXiv 1703.03864: antithetic pairs, centred ranks. A member's noise is a
function of a key and of its number, drawn again wherever it is needed and never stored for the
population.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from tsar_jax.devices import map_over, on_all_devices, one_by_one
from tsar_jax.errors import UserError, check_known
from tsar_jax.meta.gradient import Estimate, Objective, Tree

BLOCK = 8192
"""Parameters whose noise is drawn, and summed up over the population, at a time: what a CPU's
cache holds. A device draws the noise of its share of them, which makes the sums independent of the
number of devices."""

NOISE, LIFETIMES = 0, 1
"""What a generation's key is folded with for the one and for the other."""

TIES = ("average", "order")
"""How members of equal fitness rank, see `standardised_ranks`."""

Shaping = Callable[[jax.Array], jax.Array]
"""(fitness [population]) -> the weight of each member's noise [population]."""


def standardised_ranks(fitness: jax.Array, ties: str = "order") -> jax.Array:
    """Return ranks of fitness [n], of mean 0 and standard deviation 1.

    An infinite fitness ranks as the number it is, above or below all finite ones; NaN ranks below
    all others, minus infinity included.

    Args:
        fitness: of the members, float [n].
        ties: "order", as in the release: members of equal fitness, or of NaN, rank in their order.
            "average": each has the mean of their ranks; where all are equal, all ranks are 0.

    Raises:
        UserError: ties is neither.
    """
    check_known("way with ties", ties, TIES)
    valid = ~jnp.isnan(fitness)
    fitness = jnp.where(valid, fitness, 0)
    if ties == "order":
        ranks = jnp.argsort(jnp.lexsort((fitness, valid)))
    else:
        same = valid[:, None] == valid
        below = (valid[:, None] > valid) | (same & (fitness[:, None] > fitness))
        equal = same & (fitness[:, None] == fitness)
        ranks = below.sum(1) + (equal.sum(1) - 1) / 2
    ranks = ranks / (fitness.size - 1) - 0.5
    deviation = ranks.std()
    return jnp.where(deviation > 0, (ranks - ranks.mean()) / deviation, 0)


def check_population(population: int) -> None:
    """Raise UserError where a population is no even number of members, or none."""
    if population < 2 or population % 2:
        raise UserError(
            f"population must be an even number of at least 2, but is {population}: "
            "members come in pairs of opposite noise."
        )


def es_gradient(
    objective: Objective,
    theta: Tree,
    batch: Tree,
    key: jax.Array,
    *,
    population: int,
    sigma: jax.Array | float,
    shaping: Shaping = standardised_ranks,
) -> Estimate:
    """Estimate the gradient of a loss from the losses of perturbed parameters.

    The members of a pair live with the same randomness, so that only the sign of their noise tells
    them apart. The population is spread over all devices of all processes.

    Args:
        objective: (theta, item, key) -> (loss, metrics), which lives one lifetime. Item i of a
            member lives with `fold_in(lifetime_key(key, pair), i)`.
        theta: what is meta-learned; each of its direct children has noise of its own.
        batch: what each lifetime of a member is given, a tree of arrays whose leading axis counts
            lifetimes; a member's loss is its mean over them.
        key: root of the noise and of the lifetimes' randomness.
        population: number of members, even.
        sigma: standard deviation of the noise.
        shaping: what the members' fitness, their loss with the opposite sign, counts for.

    Returns:
        The mean loss, the gradient (see `gradient_from_losses`), and the metrics of each member
        [population], means over the batch.

    Raises:
        UserError: the population is odd, or below 2.
    """
    check_population(population)

    def of_pair(pair: jax.Array, shared: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        theta, batch, key, sigma = shared
        lifetimes = lifetime_key(key, pair)

        def of_member(member: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            return _mean_over(objective, perturb(theta, key, sigma, member), batch, lifetimes)

        return one_by_one(of_member)(2 * pair + jnp.arange(2))

    pairs = population // 2
    spread = map_over(of_pair, pairs, jax.devices())
    found = spread(jnp.arange(pairs), (theta, batch, key, jnp.asarray(sigma)))
    losses, metrics = jax.tree.map(lambda leaf: leaf.reshape(-1), found)
    gradient = gradient_from_losses(theta, key, losses, sigma=sigma, shaping=shaping)
    return Estimate(losses.mean(), gradient, metrics)


def _mean_over(
    objective: Objective, theta: Tree, batch: Tree, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return loss and metrics of a member, means over the batch."""
    count = jax.tree.leaves(batch)[0].shape[0]

    def of_item(indexed: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        index, item = indexed
        return objective(theta, item, jax.random.fold_in(key, index))

    found = one_by_one(of_item)((jnp.arange(count), batch))
    return jax.tree.map(lambda leaf: leaf.mean(0), found)


def gradient_from_losses(
    theta: Tree,
    key: jax.Array,
    losses: jax.Array,
    *,
    sigma: jax.Array | float,
    shaping: Shaping = standardised_ranks,
) -> Tree:
    """Estimate the gradient of a loss from what the members of a population lost.

    -1 / (n sigma) sum_k shaping(-losses)_k eps_k, where eps_k is the noise of member k.

    Args:
        theta: the population's centre.
        key: the one that `perturb` had.
        losses: of the members, float [population]; NaN is the worst of all.
        sigma, shaping: as of `es_gradient`.

    Returns:
        A tree of theta's structure, the same on all devices.
    """
    chex.assert_rank(losses, 1)
    weights = -shaping(-losses) / (losses.size * sigma)
    return on_all_devices(weighted_noise_sum(theta, key, weights))


def perturb(theta: Tree, key: jax.Array, sigma: jax.Array | float, member: jax.Array) -> Tree:
    """Return member number `member`: theta + sigma times noise, even numbers with a plus.

    Member 2 i + 1 has the noise of member 2 i with the opposite sign. key: the generation's.
    """
    scale = jnp.where(member % 2 == 0, 1, -1) * sigma

    def perturbed(part: Tree, key: jax.Array) -> Tree:
        flat, restore = ravel_pytree(part)
        if not flat.size:
            return part
        count, size = _blocks(flat.size)
        drawn = jax.vmap(partial(noise, key, member // 2, size=size))(jnp.arange(count))
        return restore(flat + scale * drawn.reshape(-1)[: flat.size])

    return _each_part(perturbed, theta, key)


def weighted_noise_sum(theta: Tree, key: jax.Array, weights: jax.Array) -> Tree:
    """Return the sum of all members' noise times their weights [population], of theta's structure.

    key: the one that `perturb` had. Spread over all devices.
    """
    of_pairs = weights[::2] - weights[1::2]

    def summed(part: Tree, key: jax.Array) -> Tree:
        flat, restore = ravel_pytree(part)
        if not flat.size:
            return part

        count, size = _blocks(flat.size)

        def of_block(block: jax.Array, of_pairs: jax.Array) -> jax.Array:
            def add(pair: Any, total: jax.Array) -> jax.Array:
                return total + of_pairs[pair] * noise(key, pair, block, size=size)

            return jax.lax.fori_loop(0, of_pairs.size, add, jnp.zeros(size))

        sums = map_over(of_block, count, jax.devices())(jnp.arange(count), of_pairs)
        return restore(sums.reshape(-1)[: flat.size])

    return _each_part(summed, theta, key)


def _each_part(function: Callable[[Tree, jax.Array], Tree], theta: Tree, key: jax.Array) -> Tree:
    """Return theta with each of its direct children replaced by function(child, key of its own)."""
    parts, structure = jax.tree.flatten(theta, is_leaf=lambda node: node is not theta)
    keys = jax.random.split(jax.random.fold_in(key, NOISE), len(parts))
    changed = [function(part, part_key) for part, part_key in zip(parts, keys, strict=True)]
    return jax.tree.unflatten(structure, changed)


def noise(key: jax.Array, pair: jax.Array, block: jax.Array, *, size: int) -> jax.Array:
    """Return a pair's noise for one block of parameters: standard normal [size]."""
    return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, pair), block), (size,))


def _blocks(parameters: int) -> tuple[int, int]:
    """Return how many blocks there are, and the size of each; the last may be filled up."""
    return -(-parameters // BLOCK), min(parameters, BLOCK)


def lifetime_key(key: jax.Array, pair: jax.Array) -> jax.Array:
    """Return the key of the lifetimes of both members of a pair, independent of their noise."""
    return jax.random.fold_in(jax.random.fold_in(key, LIFETIMES), pair)
