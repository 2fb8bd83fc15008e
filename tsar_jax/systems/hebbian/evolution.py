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
from tsar_jax.meta.evolution import (
    TIES,
    Shaping,
    check_population,
    gradient_from_losses,
    standardised_ranks,
)
from tsar_jax.training.config import earlier, formerly


class Genome(NamedTuple):
    """Evolved parameters, as two pytrees of arrays. The field names are those of checkpoints.

    main: theta, a rule's coefficients or static weights, kept small by weight decay.
    coevolved: parameters that evolve along with theta, without weight decay: convolutions, weights
        at birth.
    """

    main: Any
    coevolved: Any


@dataclasses.dataclass(frozen=True)
class Evolution:
    """Settings of the evolution strategy.

    Raises:
        UserError: a value is impossible.
    """

    population: int = 200
    """Members of a generation, in pairs of opposite noise: an even number of at least 2."""
    learning_rate: float = dataclasses.field(default=0.2, metadata=formerly("rate"))
    """Learning rate of the first generation, positive."""
    learning_rate_decay: float = dataclasses.field(default=0.995, metadata=formerly("rate_decay"))
    """Factor of the learning rate from one generation to the next, positive."""
    min_learning_rate: float = dataclasses.field(default=0.001, metadata=formerly("least_rate"))
    """Learning rate at which, or below, it no longer decays, positive."""
    sigma: float = 0.1
    """Standard deviation of the first generation's noise, positive."""
    sigma_decay: float = 0.999
    """Factor of the noise from one generation to the next, positive."""
    min_sigma: float = dataclasses.field(default=0.01, metadata=formerly("least_sigma"))
    """Standard deviation at which, or below, it no longer decays, positive."""
    weight_decay: float = dataclasses.field(default=0.01, metadata=formerly("penalty"))
    """Factor of the mean square of a member's main part, at least 0; subtracted from its fitness.
    """
    ties: Literal["average", "order"] = dataclasses.field(
        default="average", metadata=earlier("order")
    )
    """Ranks of members of equal fitness: their average, so that equal fitness moves nothing; or in
    the members' order, as in the release.
    """

    def __post_init__(self) -> None:
        check_population(self.population)
        check_known("way with ties", self.ties, TIES)
        check_rates(self, "learning_rate", "learning_rate_decay", "min_learning_rate")
        check_rates(self, "sigma", "sigma_decay", "min_sigma")
        if not 0 <= self.weight_decay < float("inf"):
            raise UserError(f"weight_decay must be at least 0, but is {self.weight_decay}.")

    @property
    def shaping(self) -> Shaping:
        """Return the shaping of the members' fitness: standardised ranks."""
        return partial(standardised_ranks, ties=self.ties)


@struct.dataclass
class EvolutionState:
    """State of an evolution before a generation.

    genome: the population's centre. opt_state: of the optimiser that moves it. generation: number
    of the next generation, int32 [].
    """

    genome: Genome
    opt_state: optax.OptState
    generation: jax.Array


def init_evolution(evolution: Evolution, genome: Genome) -> EvolutionState:
    """Return the state before the first generation, on all devices."""
    opt_state = optimiser(evolution).init(genome)
    return on_all_devices(EvolutionState(genome, opt_state, jnp.zeros((), jnp.int32)))


def es_update(evolution: Evolution, state: EvolutionState, gradient: Genome) -> EvolutionState:
    """Return the state after a generation.

    Args:
        evolution: settings.
        state: the state before it.
        gradient: estimate of the loss's gradient, of the genome's structure.
    """
    updates, opt_state = optimiser(evolution).update(gradient, state.opt_state, state.genome)
    genome = optax.apply_updates(state.genome, updates)
    return on_all_devices(EvolutionState(genome, opt_state, state.generation + 1))


def es_update_from_losses(
    evolution: Evolution, state: EvolutionState, key: jax.Array, losses: jax.Array
) -> EvolutionState:
    """Return the state after a generation whose members' losses were computed elsewhere.

    Args:
        evolution: settings.
        state: the state before it.
        key: the generation's key, as `perturb` was given it.
        losses: of the members, float [population].
    """
    sigma = sigma_schedule(evolution)(state.generation)
    gradient = gradient_from_losses(
        state.genome, key, losses, sigma=sigma, shaping=evolution.shaping
    )
    return es_update(evolution, state, gradient)


def optimiser(evolution: Evolution) -> optax.GradientTransformation:
    """Return SGD on a genome with the release's learning rates.

    The release decays its learning rate and sigma between moving the main part and moving the
    co-evolved one. So the co-evolved part moves by the next generation's rate, and its sum of noise
    is divided by the next generation's sigma, not by the one that the noise was scaled with.
    """
    learning_rate, sigma = learning_rate_schedule(evolution), sigma_schedule(evolution)

    def later_rate(count: Any) -> Any:
        return learning_rate(count + 1) * sigma(count) / sigma(count + 1)

    return optax.multi_transform(
        {"main": optax.sgd(learning_rate), "coevolved": optax.sgd(later_rate)},
        Genome("main", "coevolved"),
    )


def learning_rate_schedule(evolution: Evolution) -> optax.Schedule:
    """Return the learning rate by number of generation."""
    return _decay_past(
        evolution.learning_rate, evolution.learning_rate_decay, evolution.min_learning_rate
    )


def sigma_schedule(evolution: Evolution) -> optax.Schedule:
    """Return the standard deviation of the noise by number of generation."""
    return _decay_past(evolution.sigma, evolution.sigma_decay, evolution.min_sigma)


def _decay_past(first: float, factor: float, minimum: float) -> optax.Schedule:
    """Return the release's schedule: a value above the minimum is multiplied by the factor.

    So it ends one step below the minimum; a value that begins there or below stays as it is.
    """
    if first <= minimum:
        return optax.constant_schedule(first)
    if factor >= 1:
        return optax.exponential_decay(first, 1, factor)
    last = first * factor ** math.ceil(math.log(minimum / first) / math.log(factor))
    return optax.exponential_decay(first, 1, factor, end_value=last)


def apply_weight_decay(evolution: Evolution, fitness: jax.Array, genome: Genome) -> jax.Array:
    """Return a member's fitness less weight_decay times the mean square of its main part."""
    leaves = jax.tree.leaves(genome.main)
    count = sum(leaf.size for leaf in leaves)
    mean_square = sum(jnp.square(leaf).sum() for leaf in leaves) / count
    return fitness - evolution.weight_decay * mean_square
