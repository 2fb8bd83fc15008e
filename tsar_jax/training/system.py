"""The interface of systems, which the training loop runs."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

State = Any
"""A pytree of arrays. Its floating-point arrays are finite while training is sound: the loop
takes a NaN or an infinity in one for divergence and refuses to save it."""

Metrics = dict[str, Any]
"""A flat dictionary of scalars; that of a step contains one of `OBJECTIVES`."""

Arrays = dict[str, Any]
"""Arrays by name; unlike those of a state, they may hold NaN."""

OBJECTIVES = ("loss", "fitness_mean")
"""Names of objectives; each step has one of them among its metrics, where NaN means divergence."""


def objective_of(metrics: Iterable[str]) -> str:
    """Return the name of the objective among a step's metrics. Raises ValueError without one."""
    names = list(metrics)
    for name in OBJECTIVES:
        if name in names:
            return name
    objectives = " or ".join(f'"{name}"' for name in OBJECTIVES)
    raise ValueError(f"the metrics of a step need a {objectives}, but are {sorted(names)}")


LOWER_THE_RATE = "lower the learning rate in a new run"


class HostMetrics(NamedTuple):
    """Names of the scalars that a step and an evaluation return."""

    step: tuple[str, ...]
    evaluate: tuple[str, ...]


class System(NamedTuple):
    """A system that the training loop runs: pure functions of one seed, with data as an argument.

    init: (key) -> State.
    step: (state, data, key) -> (State, scalars, arrays), of the same shapes and dtypes at every
        step. The arrays by name, or {}, are written beside the metrics.
    evaluate: (state, data, key) -> scalars.
    remedy: advice where the objective is not finite, for error messages.
    host_metrics: names of the scalars of a system whose functions leave JAX, as for a simulator;
        they are called step by step, not traced, and return no arrays. None: they are traced.
    """

    init: Callable[[Any], State]
    step: Callable[[State, Any, Any], tuple[State, Metrics, Arrays]]
    evaluate: Callable[[State, Any, Any], Metrics]
    remedy: str = LOWER_THE_RATE
    host_metrics: HostMetrics | None = None
