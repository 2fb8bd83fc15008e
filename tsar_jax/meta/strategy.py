"""Evolution strategies behind `ask` and `tell`, and OpenAI's as one of them.

A strategy proposes a population, is told its losses, and moves the population's centre. Whoever
evaluates the population, in a compiled program or in simulators outside JAX, needs no more of it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from tsar_jax.devices import on_all_devices
from tsar_jax.meta.evolution import (
    Perturbations,
    Shaping,
    gradient_from_losses,
    perturbed,
    standardised_ranks,
)
from tsar_jax.meta.gradient import Tree

OPENAI_ES = "openai_es"
"""Name of this package's own strategy."""


@struct.dataclass
class EvolutionState:
    """State of an evolution before a generation. The field names are those of checkpoints.

    genome: the population's centre. opt_state: what else the strategy keeps, such as the state of
    the optimiser that moves the centre. generation: number of the next generation, int32 [].
    """

    genome: Tree
    opt_state: Any
    generation: jax.Array


class Strategy(NamedTuple):
    """An evolution strategy, as pure functions that JAX can trace.

    init: (genome) -> the state whose centre is `genome`.
    ask: (state, key) -> the generation, a tree of arrays from which `member` makes each member.
    member: (generation, number) -> the genome of a member, for numbers below the population's size.
    tell: (state, generation, losses [population]) -> the state before the next generation. A loss
        of NaN is the worst of all.
    sigma: (state) -> standard deviation of the next generation's noise, a mean over parameters, [].
    """

    init: Callable[[Tree], EvolutionState]
    ask: Callable[[EvolutionState, jax.Array], Any]
    member: Callable[[Any, jax.Array], Tree]
    tell: Callable[[EvolutionState, Any, jax.Array], EvolutionState]
    sigma: Callable[[EvolutionState], jax.Array]


def openai_es(
    optimiser: optax.GradientTransformation,
    sigma: optax.Schedule,
    shaping: Shaping = standardised_ranks,
) -> Strategy:
    """Return the strategy of Salimans et al. (2017), arXiv 1703.03864.

    Its members are the centre with noise of opposite signs for each pair; an optimiser follows the
    gradient that their losses estimate. The noise is drawn from the key wherever it is needed and
    never stored for the population.

    Args:
        optimiser: what follows the gradient of the loss.
        sigma: standard deviation of the noise by number of generation.
        shaping: (fitness [population]) -> weights [population] of the members' noise.
    """

    def init(genome: Tree) -> EvolutionState:
        zero = jnp.zeros((), jnp.int32)
        return on_all_devices(EvolutionState(genome, optimiser.init(genome), zero))

    def ask(state: EvolutionState, key: jax.Array) -> Perturbations:
        return Perturbations(state.genome, key, jnp.asarray(sigma(state.generation)))

    def tell(state: EvolutionState, generation: Perturbations, losses: jax.Array) -> EvolutionState:
        gradient = gradient_from_losses(
            state.genome, generation.key, losses, sigma=generation.sigma, shaping=shaping
        )
        return follow(optimiser, state, gradient)

    return Strategy(init, ask, perturbed, tell, lambda state: jnp.asarray(sigma(state.generation)))


def decay_past(first: float, factor: float, minimum: float) -> optax.Schedule:
    """Return the schedule of Najarro and Risi's release for learning rate and noise.

    A value above the minimum is multiplied by the factor. So it ends one step below the minimum; a
    value that begins there or below stays as it is.

    Args:
        first: value at step 0, positive.
        factor: of a value to the one before, positive; 1: the value is constant.
        minimum: at least 0; 0: none.
    """
    if first <= minimum or factor == 1:
        return optax.constant_schedule(first)
    if factor > 1 or not minimum:
        return optax.exponential_decay(first, 1, factor)
    last = first * factor ** math.ceil(math.log(minimum / first) / math.log(factor))
    return optax.exponential_decay(first, 1, factor, end_value=last)


def follow(
    optimiser: optax.GradientTransformation, state: EvolutionState, gradient: Tree
) -> EvolutionState:
    """Return the state after a step of the optimiser, as that of the next generation.

    Args:
        optimiser: whose state `state.opt_state` is.
        state: state of the evolution before the step.
        gradient: estimate of the loss's gradient, of the genome's structure.
    """
    updates, opt_state = optimiser.update(gradient, state.opt_state, state.genome)
    genome = optax.apply_updates(state.genome, updates)
    return on_all_devices(EvolutionState(genome, opt_state, state.generation + 1))
