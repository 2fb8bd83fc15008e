"""Evolution strategy: what a population's fitness says about where to move.

Salimans et al. (2017), arXiv 1703.03864, as Najarro and Risi (2020) use it: antithetic pairs,
centred ranks, two parts that share the members but not the noise. A member's noise is a function of
a key and of its number, drawn again wherever it is needed and never stored for the population.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree

from tsar_jax.devices import map_over, on_all_devices, one_by_one
from tsar_jax.errors import UserError, check_known, check_rates
from tsar_jax.training.config import earlier

BLOCK = 8192
"""Parameters whose noise is drawn, and summed up over the population, at a time: what a CPU's
cache holds. A device draws the noise of its share of them, which makes the sums independent of the
number of devices."""

NOISE, LIFETIMES = 0, 1
"""What a generation's key is folded with for the one and for the other."""


class Genome(NamedTuple):
    """What evolves, as two pytrees of arrays.

    main: a rule's coefficients, or static weights, kept small by a penalty on their squares.
    coevolved: what evolves along with it, without penalty: convolutions, weights at birth.
    """

    main: Any
    coevolved: Any


@dataclasses.dataclass(frozen=True)
class Evolution:
    """OpenAI-ES as the Hebbian release has it. Raises UserError for impossible values."""

    population: int = 200
    """Members of a generation, in pairs of opposite noise: an even number."""
    rate: float = 0.2
    """Learning rate of the first generation."""
    rate_decay: float = 0.995
    """Factor of the learning rate from one generation to the next."""
    least_rate: float = 0.001
    """Learning rate at which, or below, it no longer decays."""
    sigma: float = 0.1
    """Standard deviation of the first generation's noise."""
    sigma_decay: float = 0.999
    """Factor of the noise from one generation to the next."""
    least_sigma: float = 0.01
    """Standard deviation at which, or below, it no longer decays."""
    penalty: float = 0.01
    """Of a member's fitness, times the mean square of its main part."""
    ties: Literal["average", "order"] = dataclasses.field(
        default="average", metadata=earlier("order")
    )
    """Ranks of members of equal fitness: their average, so that equal fitness moves nothing; or in
    the members' order, as in the release."""

    def __post_init__(self) -> None:
        if self.population < 2 or self.population % 2:
            raise UserError(
                f"population must be an even number of at least 2, but is {self.population}: "
                "members come in pairs of opposite noise."
            )
        check_known("way with ties", self.ties, ("average", "order"))
        check_rates(self, "rate", "rate_decay", "least_rate", "sigma", "sigma_decay", "least_sigma")
        if not 0 <= self.penalty < float("inf"):
            raise UserError(f"penalty must be at least 0, but is {self.penalty}.")


@struct.dataclass
class Strategy:
    """genome: the population's centre. rate, sigma: of the generation to come, scalars."""

    genome: Genome
    rate: jax.Array
    sigma: jax.Array


def begin(evolution: Evolution, genome: Genome) -> Strategy:
    """The strategy before its first generation."""
    start = Strategy(genome, jnp.asarray(evolution.rate), jnp.asarray(evolution.sigma))
    return on_all_devices(start)


def ask(strategy: Strategy, key: jax.Array, member: jax.Array) -> Genome:
    """Member number `member`: the centre + sigma times noise, even numbers with a plus.

    Member 2 i + 1 has the noise of member 2 i with the opposite sign. key: the generation's.
    """
    sign = jnp.where(member % 2 == 0, 1, -1)
    parts = [
        _displaced(part, part_key, member // 2, sign * strategy.sigma)
        for part, part_key in zip(strategy.genome, noise_keys(key), strict=True)
    ]
    return Genome(*parts)


def tell(evolution: Evolution, strategy: Strategy, key: jax.Array, fitness: jax.Array) -> Strategy:
    """The strategy after a generation. key: the one that `ask` had; fitness [population].

    theta <- theta + rate / (n sigma) sum_k rank_k eps_k, rank_k being that of `standardised_ranks`;
    the co-evolved part moves by the decayed rate and sigma.
    """
    chex.assert_shape(fitness, (evolution.population,))
    ranks = standardised_ranks(fitness, evolution.ties)
    decayed = decay(evolution, strategy)
    main_key, coevolved_key = noise_keys(key)
    genome = strategy.genome
    moved = Genome(
        _moved(genome.main, main_key, move(ranks, strategy.rate, strategy.sigma)),
        _moved(genome.coevolved, coevolved_key, move(ranks, decayed.rate, decayed.sigma)),
    )
    return on_all_devices(Strategy(moved, decayed.rate, decayed.sigma))


def decay(evolution: Evolution, strategy: Strategy) -> Strategy:
    """Return the same genome with the next generation's rate and sigma.

    As in the release, what is above its least value is multiplied by its decay, and so ends one
    step below; what begins below stays as it is.
    """

    def decayed(value: jax.Array, factor: float, least: float) -> jax.Array:
        return jnp.where(value > least, value * factor, value)

    return Strategy(
        strategy.genome,
        decayed(strategy.rate, evolution.rate_decay, evolution.least_rate),
        decayed(strategy.sigma, evolution.sigma_decay, evolution.least_sigma),
    )


def penalised(evolution: Evolution, fitness: jax.Array, genome: Genome) -> jax.Array:
    """A member's fitness less the penalty on the mean square of its main part."""
    leaves = jax.tree.leaves(genome.main)
    count = sum(leaf.size for leaf in leaves)
    square = sum(jnp.square(leaf).sum() for leaf in leaves) / count
    return fitness - evolution.penalty * square


def standardised_ranks(fitness: jax.Array, ties: str = "order") -> jax.Array:
    """Ranks of fitness [n], of mean 0 and standard deviation 1.

    An infinite fitness ranks as the number it is, above or below all finite ones; NaN ranks below
    all others, minus infinity included.

    Args:
        ties: "order", as in the release: members of equal fitness, or of NaN, rank in their order.
            "average": each has the mean of their ranks; where all are equal, all ranks are 0.
    """
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


def move(ranks: jax.Array, rate: jax.Array, sigma: jax.Array) -> jax.Array:
    """By how much of its noise each member moves the centre: [n]."""
    return rate / (ranks.size * sigma) * ranks


def noise_keys(key: jax.Array) -> jax.Array:
    """Of the main part's noise and of the co-evolved one's, from a generation's key: [2]."""
    return jax.random.split(jax.random.fold_in(key, NOISE))


def noise(key: jax.Array, pair: jax.Array, block: jax.Array) -> jax.Array:
    """Of a pair, for one block of parameters: standard normal [BLOCK]."""
    return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, pair), block), (BLOCK,))


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _displaced(part: Any, key: jax.Array, pair: jax.Array, scale: jax.Array) -> Any:
    """A part of the genome plus scale times its pair's noise."""
    flat, restore = ravel_pytree(part)
    if not flat.size:
        return part
    drawn = jax.vmap(partial(noise, key, pair))(jnp.arange(_blocks(flat.size)))
    return restore(flat + scale * drawn.reshape(-1)[: flat.size])


def _moved(part: Any, key: jax.Array, moves: jax.Array) -> Any:
    """A part of the genome plus the sum of every member's noise times its move. moves [n]."""
    flat, restore = ravel_pytree(part)
    if not flat.size:
        return part
    of_pairs = moves[::2] - moves[1::2]

    def summed(block: jax.Array, of_pairs: jax.Array) -> jax.Array:
        def add(pair: Any, total: jax.Array) -> jax.Array:
            return total + of_pairs[pair] * noise(key, pair, block)

        return jax.lax.fori_loop(0, of_pairs.size, add, jnp.zeros(BLOCK))

    count = _blocks(flat.size)
    steps = map_over(summed, count, jax.devices())(jnp.arange(count), of_pairs)
    return restore(flat + steps.reshape(-1)[: flat.size])


Outcome = Any
"""A pytree of scalars, one of them a member's fitness; of a population, arrays [population]."""

FitnessOf = Callable[[Genome, jax.Array], Outcome]
"""(one member's genome, key of its lifetimes) -> what came of it."""


def population_fitness(
    evolution: Evolution, strategy: Strategy, key: jax.Array, fitness_of: FitnessOf
) -> Outcome:
    """What came of every member, spread over all devices of all processes.

    The members of a pair live with the same randomness, so that only their sign tells them apart.
    key: the generation's; `ask` and `tell` get the same.
    """

    def of_pair(pair: jax.Array, shared: tuple[Strategy, jax.Array]) -> Outcome:
        strategy, key = shared
        lifetimes = lifetime_key(key, pair)

        def of_member(member: jax.Array) -> Outcome:
            return fitness_of(ask(strategy, key, member), lifetimes)

        return one_by_one(of_member)(2 * pair + jnp.arange(2))

    pairs = evolution.population // 2
    spread = map_over(of_pair, pairs, jax.devices())
    found = spread(jnp.arange(pairs), (strategy, key))
    return jax.tree.map(lambda leaf: leaf.reshape(-1), found)


def lifetime_key(key: jax.Array, pair: jax.Array) -> jax.Array:
    """Of the lifetimes of both members of a pair, independent of their noise."""
    return jax.random.fold_in(jax.random.fold_in(key, LIFETIMES), pair)
