"""OpenAI-ES as the Hebbian release has it: its two parts, its schedules, its optimiser.

Najarro and Risi (2020), arXiv 2007.02686, and the release. A generation estimates a gradient
(`tsar_jax.meta.evolution`); SGD with a decaying learning rate follows it.
"""

import dataclasses
import math
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from tsar_jax.devices import on_all_devices
from tsar_jax.errors import UserError, check_known, check_rates
from tsar_jax.meta.evolution import Shaping, gradient_from_losses, standardised_ranks
from tsar_jax.training.config import earlier


class Genome(NamedTuple):
    """What evolves, as two pytrees of arrays.

    main: a rule's coefficients, or static weights, kept small by a penalty on their squares.
    coevolved: what evolves along with it, without penalty: convolutions, weights at birth.
    """

    main: Any
    coevolved: Any


@dataclasses.dataclass(frozen=True)
class Evolution:
    """Settings of the evolution strategy. Raises UserError for impossible values."""

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

    @property
    def shaping(self) -> Shaping:
        """What the members' fitness counts for: standardised ranks."""
        return partial(standardised_ranks, ties=self.ties)


@struct.dataclass
class EvolutionState:
    """An evolution before a generation.

    genome: the population's centre. opt_state: of the optimiser that moves it. generation: number
    of the generation to come, int32 [].
    """

    genome: Genome
    opt_state: optax.OptState
    generation: jax.Array


def init_evolution(evolution: Evolution, genome: Genome) -> EvolutionState:
    """Return the state before the first generation, on all devices."""
    opt_state = optimiser(evolution).init(genome)
    return on_all_devices(EvolutionState(genome, opt_state, jnp.zeros((), jnp.int32)))


def move_centre(evolution: Evolution, state: EvolutionState, gradient: Genome) -> EvolutionState:
    """Return the state after a generation.

    Args:
        evolution: settings.
        state: the state before it.
        gradient: what the generation estimates the loss's gradient to be.
    """
    updates, opt_state = optimiser(evolution).update(gradient, state.opt_state, state.genome)
    genome = optax.apply_updates(state.genome, updates)
    return on_all_devices(EvolutionState(genome, opt_state, state.generation + 1))


def learn_from_losses(
    evolution: Evolution, state: EvolutionState, key: jax.Array, losses: jax.Array
) -> EvolutionState:
    """Return the state after a generation whose members have been lived elsewhere.

    Args:
        evolution: settings.
        state: the state before it.
        key: the generation's, which `perturb` had.
        losses: of the members, float [population].
    """
    sigma = sigma_schedule(evolution)(state.generation)
    gradient = gradient_from_losses(
        state.genome, key, losses, sigma=sigma, shaping=evolution.shaping
    )
    return move_centre(evolution, state, gradient)


def optimiser(evolution: Evolution) -> optax.GradientTransformation:
    """Return SGD on a genome with the release's learning rates.

    The release decays its learning rate and sigma between moving the main part and moving the
    co-evolved one. So the co-evolved part moves by the next generation's rate, and its sum of noise
    is divided by the next generation's sigma, not by the one that the noise was scaled with.
    """
    rate, sigma = rate_schedule(evolution), sigma_schedule(evolution)

    def later_rate(count: Any) -> Any:
        return rate(count + 1) * sigma(count) / sigma(count + 1)

    return optax.multi_transform(
        {"main": optax.sgd(rate), "coevolved": optax.sgd(later_rate)}, Genome("main", "coevolved")
    )


def rate_schedule(evolution: Evolution) -> optax.Schedule:
    """Return the learning rate by number of generation."""
    return _decay_past(evolution.rate, evolution.rate_decay, evolution.least_rate)


def sigma_schedule(evolution: Evolution) -> optax.Schedule:
    """Return the standard deviation of the noise by number of generation."""
    return _decay_past(evolution.sigma, evolution.sigma_decay, evolution.least_sigma)


def _decay_past(first: float, factor: float, least: float) -> optax.Schedule:
    """Return the release's schedule: what is above its least value is multiplied by the factor.

    So it ends one step below the least value; what begins there or below stays as it is.
    """
    if first <= least:
        return optax.constant_schedule(first)
    if factor >= 1:
        return optax.exponential_decay(first, 1, factor)
    last = first * factor ** math.ceil(math.log(least / first) / math.log(factor))
    return optax.exponential_decay(first, 1, factor, end_value=last)


def penalised(evolution: Evolution, fitness: jax.Array, genome: Genome) -> jax.Array:
    """Return a member's fitness less the penalty on the mean square of its main part."""
    leaves = jax.tree.leaves(genome.main)
    count = sum(leaf.size for leaf in leaves)
    square = sum(jnp.square(leaf).sum() for leaf in leaves) / count
    return fitness - evolution.penalty * square
