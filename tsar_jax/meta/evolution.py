"""Evolution strategies: gradients estimated from a population's losses.

Salimans et al. (2017), arXiv 1703.03864: antithetic pairs, centred ranks. A member's noise is a
function of a key and of the member's number. It is drawn again wherever it is needed and never
stored for the population.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from tsar_jax.devices import map_over, on_all_devices, one_by_one
from tsar_jax.errors import UserError, check_known
from tsar_jax.meta.gradient import Estimate, Objective, Tree

BLOCK = 8192
"""Number of parameters whose noise is drawn and summed over the population at a time, such that a
CPU's cache holds them. A block is summed by one device, so that the sums do not depend on the
number of devices.
"""

NOISE, LIFETIMES = 0, 1
"""Numbers that a generation's key is folded with for the noise and for the lifetimes."""

TIES = ("average", "order")
"""Rankings of members of equal fitness, see `standardised_ranks`."""

Shaping = Callable[[jax.Array], jax.Array]
"""(fitness [population]) -> weights [population] of the members' noise."""


def standardised_ranks(fitness: jax.Array, ties: str = "order") -> jax.Array:
    """Return the ranks of fitness, float [n], with mean 0 and standard deviation 1.

    An infinite fitness ranks above or below all finite ones; NaN ranks below all others, minus
    infinity included.

    Args:
        fitness: fitness of the members, float [n].
        ties: ranks of members of equal fitness, or of NaN. "order", as in the release: in the
            members' order. "average": the mean of these ranks; 0 for all where all are equal.

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
    """Raise UserError unless a population has an even number of members, at least 2."""
    if population < 2 or population % 2:
        raise UserError(
            f"population must be an even number of at least 2, but is {population}: "
            "members come in pairs of opposite noise."
        )


def mean_square(parameters: Tree) -> jax.Array:
    """Return the mean square of all numbers in a tree of arrays, [], which weight decay lowers."""
    leaves = jax.tree.leaves(parameters)
    total = sum(jnp.square(leaf).sum() for leaf in leaves)
    return jnp.asarray(total / sum(leaf.size for leaf in leaves))


class Perturbations(NamedTuple):
    """A generation of OpenAI's strategy: the arguments of `perturb` but for the member's number."""

    genome: Tree
    key: jax.Array
    sigma: jax.Array


def perturbed(generation: Perturbations, number: jax.Array) -> Tree:
    """Return the parameters of a member of a generation."""
    return perturb(*generation, number)


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

    Both members of a pair have the same randomness in their lifetimes, so that they differ only by
    the sign of their noise. The population is spread over all devices of all processes.

    Args:
        objective: (theta, item, key) -> (loss, metrics) of one lifetime. The lifetime with item i
            of the batch has the key `fold_in(lifetime_key(key, pair), i)`.
        theta: meta-learned parameters; each of the tree's direct children has noise of its own.
        batch: inputs of a member's lifetimes, a tree of arrays whose leading axis counts
            lifetimes; a member's loss is its mean over them.
        key: root of the noise and of the lifetimes' randomness.
        population: number of members, even.
        sigma: standard deviation of the noise.
        shaping: (fitness [population]) -> weights [population]; fitness is minus the loss.

    Returns:
        The mean loss, the gradient (see `gradient_from_losses`), and the metrics of each member
        [population], means over the batch.

    Raises:
        UserError: the population is odd, or below 2.
    """
    check_population(population)

    losses, metrics = population_losses(
        objective,
        perturbed,
        Perturbations(theta, key, jnp.asarray(sigma)),
        batch,
        key,
        population=population,
    )
    gradient = gradient_from_losses(theta, key, losses, sigma=sigma, shaping=shaping)
    return Estimate(losses.mean(), gradient, metrics)


def population_losses(
    objective: Objective,
    member: Callable[[Any, jax.Array], Tree],
    generation: Any,
    batch: Tree,
    key: jax.Array,
    *,
    population: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Evaluate a population, which is spread over all devices of all processes.

    Members 2 i and 2 i + 1 have the same randomness in their lifetimes.

    Args:
        objective, batch: see `es_gradient`.
        member: (generation, number) -> the parameters of a member.
        generation: what `member` needs, a tree of arrays.
        key: root of the lifetimes' randomness, see `lifetime_key`.
        population: number of members, even.

    Returns:
        Each member's loss [population] and metrics [population], means over the batch.
    """

    def evaluate_pair(pair: jax.Array, shared: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        generation, batch, key = shared
        pair_key = lifetime_key(key, pair)

        def evaluate_member(number: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            return _mean_over(objective, member(generation, number), batch, pair_key)

        return one_by_one(evaluate_member)(2 * pair + jnp.arange(2))

    pairs = population // 2
    by_pair = map_over(evaluate_pair, pairs)(jnp.arange(pairs), (generation, batch, key))
    # Gathered here: ranks, computed where the losses are, would exchange n x n comparisons.
    return on_all_devices(jax.tree.map(lambda leaf: leaf.reshape(-1), by_pair))


def _mean_over(
    objective: Objective, theta: Tree, batch: Tree, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return loss and metrics of a member, means over the batch."""
    count = jax.tree.leaves(batch)[0].shape[0]

    def evaluate_item(indexed: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        index, item = indexed
        return objective(theta, item, jax.random.fold_in(key, index))

    by_item = one_by_one(evaluate_item)((jnp.arange(count), batch))
    return jax.tree.map(lambda leaf: leaf.mean(0), by_item)


def gradient_from_losses(
    theta: Tree,
    key: jax.Array,
    losses: jax.Array,
    *,
    sigma: jax.Array | float,
    shaping: Shaping = standardised_ranks,
) -> Tree:
    """Estimate the gradient of a loss from the losses of a population's members.

    -1 / (n sigma) sum_k shaping(-losses)_k eps_k, where eps_k is the noise of member k.

    Args:
        theta: the population's centre.
        key: key that `perturb` was given.
        losses: the members' losses, float [population]; NaN is the worst of all.
        sigma: standard deviation of the noise.
        shaping: see `es_gradient`.

    Returns:
        A tree of theta's structure, the same on all devices.
    """
    chex.assert_rank(losses, 1)
    weights = -shaping(-losses) / (losses.size * sigma)
    return on_all_devices(weighted_noise_sum(theta, key, weights))


def perturb(theta: Tree, key: jax.Array, sigma: jax.Array | float, member: jax.Array) -> Tree:
    """Return the parameters of member number `member`: theta + sigma * noise for even numbers.

    Member 2 i + 1 has theta - sigma * noise with the noise of member 2 i. key: the generation's
    key.
    """
    scale = jnp.where(member % 2 == 0, 1, -1) * sigma

    def perturbed(part: Tree, key: jax.Array) -> Tree:
        flat, restore = ravel_pytree(part)
        if not flat.size:
            return part
        count, size = _blocks(flat.size)
        drawn = jax.vmap(partial(noise, key, member // 2, size=size))(jnp.arange(count))
        return restore(flat + scale * drawn.reshape(-1)[: flat.size])

    return _map_children(perturbed, theta, key)


def weighted_noise_sum(theta: Tree, key: jax.Array, weights: jax.Array) -> Tree:
    """Return the sum of all members' noise times their weights [population], of theta's structure.

    The sum is spread over all devices. key: key that `perturb` was given.
    """
    # The members of a pair have the same noise with opposite signs.
    pair_weights = weights[::2] - weights[1::2]

    def noise_sum(part: Tree, key: jax.Array) -> Tree:
        flat, restore = ravel_pytree(part)
        if not flat.size:
            return part

        count, size = _blocks(flat.size)

        def sum_block(block: jax.Array, pair_weights: jax.Array) -> jax.Array:
            def add(pair: Any, total: jax.Array) -> jax.Array:
                return total + pair_weights[pair] * noise(key, pair, block, size=size)

            return jax.lax.fori_loop(0, pair_weights.size, add, jnp.zeros(size))

        sums = map_over(sum_block, count)(jnp.arange(count), pair_weights)
        return restore(sums.reshape(-1)[: flat.size])

    return _map_children(noise_sum, theta, key)


def _map_children(function: Callable[[Tree, jax.Array], Tree], theta: Tree, key: jax.Array) -> Tree:
    """Return theta with each direct child replaced by function(child, its own key)."""
    children, structure = jax.tree.flatten(theta, is_leaf=lambda node: node is not theta)
    keys = jax.random.split(jax.random.fold_in(key, NOISE), len(children))
    mapped = [function(child, child_key) for child, child_key in zip(children, keys, strict=True)]
    return jax.tree.unflatten(structure, mapped)


def noise(key: jax.Array, pair: jax.Array, block: jax.Array, *, size: int) -> jax.Array:
    """Return a pair's noise for one block of parameters: standard normal [size]."""
    return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, pair), block), (size,))


def _blocks(parameters: int) -> tuple[int, int]:
    """Return the number of blocks and their size; the last block may be padded."""
    return -(-parameters // BLOCK), min(parameters, BLOCK)


def lifetime_key(key: jax.Array, pair: jax.Array) -> jax.Array:
    """Return the key of the lifetimes of both members of a pair, independent of their noise."""
    return jax.random.fold_in(jax.random.fold_in(key, LIFETIMES), pair)
