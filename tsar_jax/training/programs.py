"""The compiled programs of a run: each is traced once."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.devices import map_over
from tsar_jax.training.metrics import csv_columns
from tsar_jax.training.system import (
    LOST_SEEDS,
    HostSystem,
    SeedsSystem,
    State,
    System,
    objective_of,
)


def strong_types(tree: Any) -> Any:
    """The same arrays without weak types, which would make a second trace of the same program."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)


def finite_mean(values: jax.Array) -> jax.Array:
    """Over the leading axis, of those that are finite; NaN where none is."""
    return jnp.nanmean(jnp.where(jnp.isfinite(values), values, jnp.nan), axis=0)


def all_finite(tree: Any) -> jax.Array:
    """Whether every floating-point array of a tree is finite: a scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


class Programs(NamedTuple):
    """What a run compiles, each once.

    init: (key) -> State
    chunk: (state, data, root key, first step, number of steps) -> (State, {name: [chunk]}); the
        state is donated; the entries past the number of steps mean nothing
    compile_chunk: (state, data, root key) -> the chunk for such arguments, compiled ahead so that
        no rate contains the time it takes
    evaluate: (state, data, key) -> Metrics
    places: how init spreads the state over devices, as a tree of shardings; None: there is one
    columns: the metrics' names, of a step's and of an evaluation's
    lost, remedy: the system's
    """

    init: Callable[..., Any]
    chunk: Callable[..., Any]
    compile_chunk: Callable[..., Callable[..., Any]]
    evaluate: Callable[..., Any]
    places: Any
    columns: list[str]
    lost: Callable[[State], Sequence[int]] | None
    remedy: str


def make_init(system: System | SeedsSystem | HostSystem) -> Callable[[jax.Array], State]:
    """Return the compiled (key) -> State of a system: the state before the first step."""
    return jax.jit(lambda key: strong_types(system.init(key)))


def make_programs(
    system: System | SeedsSystem | HostSystem,
    data: Any,
    key: jax.Array,
    chunk: int,
    init: Callable[[jax.Array], State] | None = None,
) -> Programs:
    """The programs of a system, which are traced once, or stay as they are if it is on the host.

    init: what `make_init` made of the system, where it has been traced already.
    """
    init = init or make_init(system)
    if isinstance(system, HostSystem):
        return _host_programs(system, init, chunk)
    return _traced_programs(system, init, data, key, chunk)


def _traced_programs(
    system: System | SeedsSystem, init: Any, data: Any, key: jax.Array, chunk: int
) -> Programs:
    """Traces the system's functions once and describes their metrics."""
    step, evaluate = jax.jit(system.step), jax.jit(system.evaluate)
    state = jax.eval_shape(init, key)
    several = jax.local_device_count() > 1
    places = init.lower(key).compile().output_shardings if several else None
    seeds = system.seeds if isinstance(system, SeedsSystem) else 0

    def take_step(state: State, data: Any, root: jax.Array, number: Any) -> Any:
        """Of one seed, where there are several."""
        return step(state, data, number if seeds else jax.random.fold_in(root, number))

    one = state
    if seeds:
        one = jax.eval_shape(lambda state: jax.tree.map(lambda leaf: leaf[0], state), state)
    step_metrics = jax.eval_shape(take_step, one, data, key, 0)[1]
    eval_metrics = jax.eval_shape(evaluate, state, data, key)
    _check_metrics(step_metrics, eval_metrics)

    def run_steps(state: State, shared: Any) -> Any:
        data, root, first, count = shared

        def one_step(index: Any, carry: Any) -> Any:
            state, buffers = carry
            state, metrics = take_step(state, data, root, first + index)
            buffers = {
                name: buffer.at[index].set(metrics[name].astype(buffer.dtype))
                for name, buffer in buffers.items()
            }
            return strong_types(state), buffers

        buffers = {name: jnp.zeros(chunk, jnp.float32) for name in step_metrics}
        # The number of steps is an argument of the program, not a part of it: chunks of every
        # length run the very same instructions, so their lengths cannot change a bit of the state.
        return lax.fori_loop(0, count, one_step, (state, buffers))

    def run_chunk(state: State, data: Any, root: jax.Array, first: Any, count: Any) -> Any:
        shared = (data, root, first, count)
        if not seeds:
            return run_steps(state, shared)
        state, buffers = map_over(run_steps, seeds)(state, shared)
        return state, {name: finite_mean(buffer) for name, buffer in buffers.items()}

    # A state spread over devices comes back as it went in, whatever the compiler would prefer.
    compiled = jax.jit(run_chunk, donate_argnums=0, out_shardings=(places, None))

    def compile_chunk(state: State, data: Any, root: jax.Array) -> jax.stages.Compiled:
        """Called with other shapes or dtypes it raises, where `jax.jit` would compile anew."""
        return compiled.lower(state, data, root, np.int32(0), np.int32(0)).compile()

    columns = csv_columns([*step_metrics, *eval_metrics, *([LOST_SEEDS] if system.lost else [])])
    lost, remedy = system.lost, system.remedy
    return Programs(init, compiled, compile_chunk, evaluate, places, columns, lost, remedy)


def _host_programs(system: HostSystem, init: Any, chunk: int) -> Programs:
    """The system's own functions, one call per step."""

    def run_chunk(state: State, data: Any, root: jax.Array, first: Any, count: Any) -> Any:
        buffers = {name: np.zeros(chunk, np.float32) for name in system.step_metrics}
        for index in range(count):
            state, metrics = system.step(state, data, jax.random.fold_in(root, first + index))
            for name, buffer in buffers.items():
                buffer[index] = metrics[name]
        return state, buffers

    columns = csv_columns([*system.step_metrics, *system.eval_metrics])
    evaluate, remedy = system.evaluate, system.remedy
    return Programs(init, run_chunk, lambda *_: run_chunk, evaluate, None, columns, None, remedy)


def _check_metrics(step_metrics: Any, eval_metrics: Any) -> None:
    for metrics in (step_metrics, eval_metrics):
        for name, value in metrics.items():
            if value.shape:
                raise ValueError(f"metric {name!r} must be a scalar, but has shape {value.shape}")
    objective_of(step_metrics)
