"""Several seeds in one run, each trained as if it were alone, until it is lost by divergence."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax import processes
from tsar_jax.errors import UserError
from tsar_jax.finite import all_finite, is_inexact
from tsar_jax.training.system import State

LOST_SEEDS = "lost_seeds"
"""Name of the metric that counts the seeds lost by the end of a chunk."""


class SeedsState(NamedTuple):
    """The state of a run of several seeds.

    state: the system's state, every array with a leading axis of seeds. lost: bool [seeds], whether
        a step would have made a floating-point array of the seed's state infinite or NaN. Those
        arrays stay as they were before that step; others, as the images in a replay buffer, still
        change, for to keep both versions of a buffer would cost every step a copy.
    """

    state: State
    lost: jax.Array


def unless_lost(old: SeedsState, new: State, scalars: Any, arrays: Any) -> tuple[Any, Any, Any]:
    """Return a seed's state, scalars and arrays after a step, or those of a lost seed.

    Args:
        old: the seed's state before the step, without the leading axis.
        new: the system's state after the step.
        scalars: scalars of the step; NaN from the step on at which the seed is lost.
        arrays: arrays of the step; NaN from the step after that on, if floating-point.
    """
    sound = ~old.lost & all_finite(new)

    def select(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(sound, new, old) if is_inexact(new) else new

    def nan_if_lost(value: jax.Array) -> jax.Array:
        return jnp.where(old.lost, jnp.nan, value) if is_inexact(value) else value

    state = SeedsState(jax.tree.map(select, new, old.state), ~sound)
    scalars = {name: jnp.where(sound, value, jnp.nan) for name, value in scalars.items()}
    arrays = {name: nan_if_lost(value) for name, value in arrays.items()}
    return state, scalars, arrays


def lost_seeds(state: Any) -> list[int]:
    """Return the numbers, from 0, of the seeds that are lost; [] for a run of one seed."""
    return (
        np.flatnonzero(processes.on_host(state.lost)).tolist()
        if isinstance(state, SeedsState)
        else []
    )


def stack_seeds(state: State) -> State:
    """Return the system's state with a leading axis of seeds, which one seed has not."""
    if isinstance(state, SeedsState):
        return state.state
    return jax.tree.map(lambda leaf: leaf[None], state)


def of_several_seeds(arrays: Mapping[str, np.ndarray]) -> bool:
    """Return whether the arrays of a checkpoint, by path, are those of a `SeedsState`."""
    return "lost" in arrays and all(
        name in ("lost", "state") or name.startswith("state/") for name in arrays
    )


def arrays_of_seed(
    arrays: Mapping[str, np.ndarray], seed: int, source: str
) -> dict[str, np.ndarray]:
    """Return the arrays of one seed from a checkpoint of several seeds or of one.

    Args:
        arrays: arrays by their paths in the loop's state.
        seed: number of the seed, from 0.
        source: where the arrays are from, for error messages.

    Raises:
        UserError: there is no such seed.
    """
    several = of_several_seeds(arrays)
    seeds = len(arrays["lost"]) if several else 1
    if not 0 <= seed < seeds:
        raise UserError(
            f"The {source} is of {seeds} seeds: there is no number {seed}, counted from 0."
        )
    if not several:
        return dict(arrays)
    return {
        name.removeprefix("state/"): array[seed] for name, array in arrays.items() if name != "lost"
    }
