"""A meta-step as a benchmark calls it, whatever the system."""

from collections.abc import Callable
from typing import Any

import jax

from tsar_jax.training.programs import strong_types
from tsar_jax.training.system import System


def step_of(
    system: System, data: Any
) -> tuple[Callable[..., tuple[Any, Any]], Any, tuple[Any, ...]]:
    """Function, first state and arguments of a `Work` that makes one step in a call."""
    init_key, step_key = jax.random.split(jax.random.key(0))

    def function(state: Any, call: jax.Array, data: Any, root: jax.Array) -> tuple[Any, Any]:
        state, *found = system.step(state, data, jax.random.fold_in(root, call))
        return strong_types(state), found

    state = jax.jit(lambda key: strong_types(system.init(key)))(init_key)
    return function, state, (jax.device_put(data), step_key)
