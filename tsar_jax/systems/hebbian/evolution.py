"""OpenAI-ES as the Hebbian release has it, or another strategy or optimiser in its place.

Najarro and Risi (2020), arXiv 2007.02686, and the release. A generation estimates a gradient
(`tsar_jax.meta.evolution`); SGD with a decaying learning rate follows it.
"""

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tsar_jax.errors import UserError, check_known, check_rates
from tsar_jax.meta.evolution import (
    TIES,
    Shaping,
    check_population,
    mean_square,
    standardised_ranks,
)
from tsar_jax.meta.evosax_strategies import evosax_strategy
from tsar_jax.meta.strategy import OPENAI_ES, EvolutionState, Strategy, decay_past, openai_es
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

    A strategy of evosax has its own ranks and, without `optimiser`, its own learning rate. It
    begins with `sigma`; where it does not adapt its noise, that decays as set here.

    Raises:
        UserError: a value is impossible.
    """

    strategy: str = dataclasses.field(default=OPENAI_ES, metadata=earlier(OPENAI_ES))
    """openai_es, as in the release; or a strategy of evosax, such as SNES, PGPE or Sep_CMA_ES."""
    optimiser: str | None = dataclasses.field(default=None, metadata=earlier(None))
    """Optimiser of optax that moves the centre at the learning rate below, such as adam; None: the
    strategy's own, of openai_es SGD.
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
        return functools.partial(standardised_ranks, ties=self.ties)


def make_strategy(evolution: Evolution, genome: Genome) -> Strategy:
    """Return the strategy that settings name.

    Args:
        evolution: settings.
        genome: tree of arrays, or of their shapes and dtypes, as the members are.

    Raises:
        UserError: there is no such strategy or optimiser, or they do not fit each other or the
            genome.
        NotInstalled: evosax is needed and missing.
    """
    if evolution.strategy == OPENAI_ES:
        return openai_es(optimiser(evolution), sigma_schedule(evolution), evolution.shaping)
    return evosax_strategy(
        evolution.strategy,
        genome,
        population=evolution.population,
        sigma=sigma_schedule(evolution),
        optimiser=None if evolution.optimiser is None else chosen_optimiser(evolution),
    )


def init_evolution(evolution: Evolution, genome: Genome) -> EvolutionState:
    """Return the state before the first generation, on all devices."""
    return make_strategy(evolution, genome).init(genome)


def optimiser(evolution: Evolution) -> optax.GradientTransformation:
    """Return what moves the centre of OpenAI-ES: SGD as in the release, or the optimiser named.

    The release decays its learning rate and sigma between moving the main part and moving the
    co-evolved one. So the co-evolved part moves by the next generation's rate, and its sum of noise
    is divided by the next generation's sigma, not by the one that the noise was scaled with. An
    optimiser that is named moves both parts by the same generation's rate.
    """
    if evolution.optimiser is not None:
        return chosen_optimiser(evolution)
    learning_rate, sigma = learning_rate_schedule(evolution), sigma_schedule(evolution)

    def later_rate(count: Any) -> Any:
        return learning_rate(count + 1) * sigma(count) / sigma(count + 1)

    return optax.multi_transform(
        {"main": optax.sgd(learning_rate), "coevolved": optax.sgd(later_rate)},
        Genome("main", "coevolved"),
    )


def chosen_optimiser(evolution: Evolution) -> optax.GradientTransformation:
    """Return the optimiser of optax that settings name, with their learning rate.

    Raises:
        UserError: optax has none of the name that needs a learning rate and a gradient alone.
    """
    name = evolution.optimiser or ""
    check_known("optimiser", name, optimisers())
    return optimisers()[name](learning_rate_schedule(evolution))


@functools.cache
def optimisers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Return the optimisers of optax that need a learning rate and a gradient alone, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on arguments that an optimiser will need one day
        return {
            name: function
            for name, function in sorted(vars(optax).items())
            if inspect.isfunction(function) and _needs_a_rate_alone(function)
        }


def _needs_a_rate_alone(function: Callable[..., Any]) -> bool:
    """Return whether a function is an optimiser of optax that a learning rate completes."""
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].name != "learning_rate":
        return False
    others = parameters[1:]
    if any(parameter.default is inspect.Parameter.empty for parameter in others):
        return False
    if function.__name__.startswith("scale_by") or any(p.name in ("key", "seed") for p in others):
        return False  # a part of an optimiser, or one with randomness of its own
    try:
        optimiser, zero = function(optax.constant_schedule(0.1)), jnp.zeros(())
        jax.eval_shape(lambda: optimiser.update(zero, optimiser.init(zero), zero))
    except (TypeError, ValueError):  # it takes no schedule, or also needs the loss
        return False
    return True


def learning_rate_schedule(evolution: Evolution) -> optax.Schedule:
    """Return the learning rate by number of generation."""
    return decay_past(
        evolution.learning_rate, evolution.learning_rate_decay, evolution.min_learning_rate
    )


def sigma_schedule(evolution: Evolution) -> optax.Schedule:
    """Return the standard deviation of the noise by number of generation."""
    return decay_past(evolution.sigma, evolution.sigma_decay, evolution.min_sigma)


def apply_weight_decay(evolution: Evolution, fitness: jax.Array, genome: Genome) -> jax.Array:
    """Return a member's fitness less weight_decay times the mean square of its main part."""
    return fitness - evolution.weight_decay * mean_square(genome.main)
