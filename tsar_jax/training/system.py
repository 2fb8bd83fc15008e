"""What the training loop asks of a system."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

State = Any
"""A pytree of arrays. Its floating-point arrays are finite while training is sound: the loop
takes a NaN or an infinity in one for divergence and refuses to save it."""

Metrics = dict[str, Any]
"""A flat dictionary of scalars; that of a step contains one of `OBJECTIVES`."""

OBJECTIVES = ("loss", "fitness_mean")
"""Metrics of what is trained, one of which every step has: NaN says that training diverged."""


def objective_of(metrics: Iterable[str]) -> str:
    """Return the name of the objective among a step's metrics. Raises ValueError without one."""
    names = list(metrics)
    for name in OBJECTIVES:
        if name in names:
            return name
    wanted = " or ".join(f'"{name}"' for name in OBJECTIVES)
    raise ValueError(f"the metrics of a step need a {wanted}, but are {sorted(names)}")


LOWER_THE_RATE = "lower the learning rate in a new run"
LOST_SEEDS = "lost_seeds"
"""Metric of systems of several seeds: how many are lost at the end of a chunk."""


class System(NamedTuple):
    """Three pure functions; data is an argument, never closed over.

    init: (key) -> State
    step: (state, data, key) -> (State, Metrics), of the same shapes and dtypes at every step
    evaluate: (state, data, key) -> Metrics
    lost: of a system of several seeds, (state) -> numbers of the seeds that are lost: training
        made one of their arrays infinite or NaN, since when they stay as they were before
    remedy: what to do where the loss is not finite
    """

    init: Callable[[Any], State]
    step: Callable[[State, Any, Any], tuple[State, Metrics]]
    evaluate: Callable[[State, Any, Any], Metrics]
    lost: Callable[[State], Sequence[int]] | None = None
    remedy: str = LOWER_THE_RATE


class SeedsSystem(NamedTuple):
    """Several seeds that know nothing of each other; each has its randomness in its state.

    On a CPU one of them takes all steps of a chunk before the next one does: what it works on stays
    in the cache, and nothing is copied out of the stack and into it at every step.

    init: (key) -> State of all seeds, the leading axis of every leaf
    step: (state of one seed, data, number of the step) -> (its state, its Metrics), otherwise as
        that of `System`; a step's metrics are the means over the seeds, less those not finite
    evaluate: (state of all seeds, data, key) -> Metrics
    seeds: how many
    lost, remedy: as of `System`
    """

    init: Callable[[Any], State]
    step: Callable[[State, Any, Any], tuple[State, Metrics]]
    evaluate: Callable[[State, Any, Any], Metrics]
    seeds: int
    lost: Callable[[State], Sequence[int]] | None = None
    remedy: str = LOWER_THE_RATE


class HostSystem(NamedTuple):
    """A system whose steps leave JAX, as for a simulator, and so are called one by one.

    The functions are those of `System`, not traced and with numpy or JAX scalars as metrics, whose
    names are step_metrics and eval_metrics. remedy: as of `System`.
    """

    init: Callable[[Any], State]
    step: Callable[[State, Any, Any], tuple[State, Metrics]]
    evaluate: Callable[[State, Any, Any], Metrics]
    step_metrics: tuple[str, ...]
    eval_metrics: tuple[str, ...]
    remedy: str = LOWER_THE_RATE
