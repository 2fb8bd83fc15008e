"""What the training loop asks of a system."""

from collections.abc import Callable
from typing import Any, NamedTuple

State = Any
"""A pytree of arrays. Its floating-point arrays are finite while training is sound: the loop
takes a NaN or an infinity in one for divergence and refuses to save it."""

Metrics = dict[str, Any]
"""A flat dictionary of scalars; that of a step contains "loss"."""


class System(NamedTuple):
    """Three pure functions; data is an argument, never closed over.

    init: (key) -> State
    step: (state, data, key) -> (State, Metrics), of the same shapes and dtypes at every step
    evaluate: (state, data, key) -> Metrics
    """

    init: Callable[[Any], State]
    step: Callable[[State, Any, Any], tuple[State, Metrics]]
    evaluate: Callable[[State, Any, Any], Metrics]
