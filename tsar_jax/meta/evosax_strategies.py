"""Evolution strategies of the library evosax, behind the `Strategy` of this package.

Those of its strategies are offered that keep the centre of a distribution, which is what is
evaluated, saved and shown. https://github.com/RobertTLange/evosax
"""

import inspect
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tsar_jax.devices import on_all_devices
from tsar_jax.errors import NotInstalled, UserError, check_known, pip
from tsar_jax.meta.evolution import NOISE
from tsar_jax.meta.gradient import Tree
from tsar_jax.meta.strategy import OPENAI_ES, EvolutionState, Strategy

UNFIT = (
    # Without a centre, or with several.
    *("RandomSearch", "SV_CMA_ES", "SV_Open_ES"),
    # They learn from parts of a lifetime, and would reuse noise over ten whole ones.
    *("PersistentES", "NoiseReuseES"),
    # It needs a gradient to begin with.
    "GuidedES",
)
"""Distributions of evosax that are not offered."""

MAX_STATE_BYTES = 2**31
"""Largest state of a strategy; a matrix of more than 23,000 parameters squared is larger."""


class Proposed(NamedTuple):
    """A generation: members [population, ...] in evosax's order, its state, and a key to tell."""

    population: Tree
    state: Any
    key: jax.Array


def evosax_strategy(
    name: str,
    genome: Tree,
    *,
    population: int,
    sigma: optax.Schedule,
    optimiser: optax.GradientTransformation | None = None,
) -> Strategy:
    """Return a strategy of evosax with its own defaults.

    A loss that is not finite counts as just worse than the worst, or for minus infinity just better
    than the best, of the finite ones, because not every strategy ranks losses. Members 2 i and
    2 i + 1 are those that a strategy of antithetic noise draws to either side of the centre, so
    that they can share their randomness.

    Args:
        name: name of the strategy in evosax.
        genome: tree of arrays, or of their shapes and dtypes, as the members are.
        population: number of members.
        sigma: standard deviation of the noise by number of generation. A strategy that adapts it
            begins with that of the first.
        optimiser: what moves the centre; None: as the strategy has it.

    Raises:
        UserError: there is no such strategy, it does not take such a population, it needs more
            memory than `MAX_STATE_BYTES`, or an optimiser is given and the strategy takes none.
        NotInstalled: evosax is missing.
    """
    algorithms = centred_algorithms()
    check_known("strategy", name, (OPENAI_ES, *algorithms))
    arguments = inspect.signature(algorithms[name]).parameters
    chosen: dict[str, Any] = {}
    if optimiser is not None:
        if "optimizer" not in arguments:
            raise UserError(
                f"The strategy {name} moves its centre without an optimiser: leave optimiser out."
            )
        chosen["optimizer"] = optimiser
    if "std_schedule" in arguments:
        chosen["std_schedule"] = sigma
    solution = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), genome)
    with jax.ensure_compile_time_eval():
        try:
            algorithm = algorithms[name](population_size=population, solution=solution, **chosen)
        except (AssertionError, ValueError) as error:
            raise UserError(
                f"The strategy {name} does not take a population of {population} ({error}): choose "
                "another population or strategy."
            ) from error
        params = algorithm.default_params
        if hasattr(params, "std_init"):
            params = params.replace(std_init=jnp.asarray(sigma(0), jnp.float32))
    check_size(name, algorithm, params)

    def init(genome: Tree) -> EvolutionState:
        # A distribution draws nothing as it begins; evosax has the argument for other strategies.
        state = algorithm.init(jax.random.key(0), genome, params)
        return settled(EvolutionState(genome, state, jnp.zeros((), jnp.int32)))

    def ask(state: EvolutionState, key: jax.Array) -> Proposed:
        to_ask, to_tell = jax.random.split(jax.random.fold_in(key, NOISE))
        members, asked = algorithm.ask(to_ask, state.opt_state, params)
        return Proposed(members, asked, to_tell)

    def member(generation: Proposed, number: jax.Array) -> Tree:
        place = number // 2 + number % 2 * (population // 2)
        return jax.tree.map(lambda leaf: leaf[place], generation.population)

    def tell(state: EvolutionState, generation: Proposed, losses: jax.Array) -> EvolutionState:
        members, asked, key = generation
        in_places = finite(losses).reshape(-1, 2).T.reshape(-1)
        told, _ = algorithm.tell(key, members, in_places, asked, params)
        centre = algorithm.get_mean(told)
        return settled(EvolutionState(centre, told, state.generation + 1))

    def sigma_of(state: EvolutionState) -> jax.Array:
        adapted = getattr(state.opt_state, "std", None)
        return jnp.asarray(sigma(state.generation) if adapted is None else adapted).mean()

    return Strategy(init, ask, member, tell, sigma_of)


def centred_algorithms() -> dict[str, Any]:
    """Return the classes of evosax whose distribution has a centre, by name.

    Raises:
        NotInstalled: evosax is missing.
    """
    try:
        from evosax.algorithms import distribution_based_algorithms
    except ImportError as error:
        raise NotInstalled(
            "Every strategy but openai_es needs evosax: "
            f'{pip()} install "tsar_jax[evolution]", or take openai_es.'
        ) from error
    return {
        name: algorithm
        for name, algorithm in distribution_based_algorithms.items()
        if name not in UNFIT
    }


def check_size(name: str, algorithm: Any, params: Any) -> None:
    """Raise UserError where the state of a strategy would be larger than `MAX_STATE_BYTES`."""
    state = jax.eval_shape(
        lambda: algorithm.init(jax.random.key(0), algorithm.solution, params),
    )
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if size > MAX_STATE_BYTES:
        raise UserError(
            f"The strategy {name} would keep {size / 1e9:.0f} GB for {algorithm.num_dims:,} "
            "parameters: take one without a matrix, such as SNES or Sep_CMA_ES, or a smaller "
            "network."
        )


def finite(losses: jax.Array) -> jax.Array:
    """Return losses with numbers for NaN and infinity, just above the largest finite loss, and for
    minus infinity, just below the least.

    All are 0 where none is finite.
    """
    known = jnp.isfinite(losses)
    above = jnp.nextafter(jnp.where(known, losses, -jnp.inf).max(), jnp.inf)
    below = jnp.nextafter(jnp.where(known, losses, jnp.inf).min(), -jnp.inf)
    bounded = jnp.where(known, losses, jnp.where(losses == -jnp.inf, below, above))
    return jnp.where(known.any(), bounded, 0)


def settled(state: EvolutionState) -> EvolutionState:
    """Return the state on all devices, in a form that can be saved.

    JAX types evosax's numbers weakly, and would compile a generation twice. And what evosax has not
    seen yet, as the best loss, it keeps as NaN or infinite, which in a state means divergence: that
    becomes 0 or the largest number. The genome stays as it is.
    """
    kept = jax.tree.map(jnp.nan_to_num, state.opt_state)
    kept_state = EvolutionState(state.genome, kept, state.generation)
    strong = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), kept_state)
    return on_all_devices(strong)
