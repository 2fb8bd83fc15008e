"""The compiled programs of a run, each traced once."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax import processes
from tsar_jax.devices import map_over
from tsar_jax.finite import finite_mean
from tsar_jax.training.metrics import csv_columns
from tsar_jax.training.seeds import LOST_SEEDS, SeedsState, unless_lost
from tsar_jax.training.system import State, System, objective_of


def strong_types(tree: Any) -> Any:
    """Return the arrays without weak types, which would cause a second trace of a program."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)


class Programs(NamedTuple):
    """The programs of a run. Keys have a leading axis where there are several seeds.

    init: (key or keys) -> State.
    chunk: (state, data, root key or keys, first step, number of steps) -> (State, scalars [chunk],
        arrays [chunk, ...] or [seeds, chunk, ...]); the state is donated; the entries past the
        number of steps mean nothing.
    compile_chunk: (state, data, root) -> the chunk for such arguments, compiled ahead so that
        steps per second do not include the time it takes. For arguments of other shapes or dtypes
        it raises, where `jax.jit` would compile anew.
    evaluate: (state, data, key or keys) -> scalars.
    places: the state's shardings as init returns it, None on a single device.
    columns: columns of metrics.csv, which hold the scalars of a step and of an evaluation.
    arrays: names of a step's arrays.
    remedy: advice where the objective is not finite, see `System`.
    """

    init: Callable[..., Any]
    chunk: Callable[..., Any]
    compile_chunk: Callable[..., Callable[..., Any]]
    evaluate: Callable[..., Any]
    places: Any
    columns: list[str]
    arrays: tuple[str, ...]
    remedy: str


def make_init(system: System, seeds: int = 1) -> Callable[[jax.Array], State]:
    """Return the compiled function (key or keys) -> the state before the first step."""

    def init_seed(key: jax.Array) -> State:
        return strong_types(system.init(key))

    if seeds == 1:
        return jax.jit(init_seed)

    def init_seeds(keys: jax.Array) -> SeedsState:
        state = map_over(lambda key, _: init_seed(key), seeds)(keys, ())
        return SeedsState(state, jnp.zeros(seeds, bool))

    return jax.jit(init_seeds)


def make_programs(
    system: System,
    data: Any,
    key: jax.Array,
    chunk: int,
    init: Callable[[jax.Array], State] | None = None,
    seeds: int = 1,
) -> Programs:
    """Return the programs of a system: traced once, or called as they are if they leave JAX.

    Args:
        system: the system.
        data: the system's data.
        key: key for init, [seeds] where there are several.
        chunk: largest number of steps of a call.
        init: `make_init(system, seeds)`, where it has been traced already.
        seeds: number of the run's seeds.
    """
    init = init or make_init(system, seeds)
    if system.host_metrics is not None:
        return _host_programs(system, init, chunk, seeds)
    return _traced_programs(system, init, data, key, chunk, seeds)


def _traced_programs(
    system: System, init: Any, data: Any, key: jax.Array, chunk: int, seeds: int
) -> Programs:
    """Return the programs of a system whose functions are traced."""
    step, evaluate = jax.jit(system.step), jax.jit(system.evaluate)
    state = jax.eval_shape(init, key)
    spread = len(processes.devices()) > 1
    places = init.lower(key).compile().output_shardings if spread else None
    # Every process needs the scalars and arrays whole, the parts of the others included.
    whole = processes.everywhere() if processes.several() else None
    seed_key = key if seeds == 1 else key[0]
    seed_state = state if seeds == 1 else jax.tree.map(_without_axis, state.state)
    _, step_scalars, step_arrays = jax.eval_shape(step, seed_state, data, seed_key)
    eval_scalars = jax.eval_shape(evaluate, seed_state, data, seed_key)
    _check_scalars(step_scalars, eval_scalars)

    run_chunk = _chunk_function(step, step_scalars, step_arrays, chunk, seeds)
    # The state keeps its shardings, whatever the compiler would prefer.
    compiled = jax.jit(run_chunk, donate_argnums=0, out_shardings=(places, whole, whole))

    def compile_chunk(state: State, data: Any, root: jax.Array) -> jax.stages.Compiled:
        return compiled.lower(state, data, root, np.int32(0), np.int32(0)).compile()

    return Programs(
        init,
        compiled,
        compile_chunk,
        jax.jit(evaluate if seeds == 1 else _evaluate_seeds(evaluate, seeds), out_shardings=whole),
        places,
        _columns(step_scalars, eval_scalars, seeds),
        tuple(step_arrays),
        system.remedy,
    )


def _chunk_function(
    step: Callable[..., Any], step_scalars: Any, step_arrays: Any, chunk: int, seeds: int
) -> Callable[..., Any]:
    """Return `Programs.chunk`, not compiled yet, from a system's step and the shapes it returns."""

    def take_step(state: State, data: Any, key: jax.Array) -> Any:
        if seeds == 1:
            return step(state, data, key)
        return unless_lost(state, *step(state.state, data, key))

    def run_steps(state_and_root: Any, shared: Any) -> Any:
        (state, root), (data, first, count) = state_and_root, shared

        def one_step(index: Any, carry: Any) -> Any:
            state, buffers = carry
            state, *outputs = take_step(state, data, jax.random.fold_in(root, first + index))
            buffers = jax.tree.map(
                lambda buffer, value: buffer.at[index].set(jnp.asarray(value, buffer.dtype)),
                buffers,
                tuple(outputs),
            )
            return strong_types(state), buffers

        scalars = {name: jnp.zeros(chunk, jnp.float32) for name in step_scalars}
        arrays = {name: jnp.zeros((chunk, *a.shape), a.dtype) for name, a in step_arrays.items()}
        # The number of steps is an argument of the program, not a part of it: chunks of every
        # length run the very same instructions, so their lengths cannot change a bit of the state.
        return lax.fori_loop(0, count, one_step, (state, (scalars, arrays)))

    def run_chunk(state: State, data: Any, root: jax.Array, first: Any, count: Any) -> Any:
        shared = (data, first, count)
        if seeds == 1:
            state, (scalars, arrays) = run_steps((state, root), shared)
            return state, scalars, arrays
        # On a CPU one seed takes all steps of a chunk before the next one does: its working set
        # stays in the cache, and nothing is copied out of the stack and into it at every step.
        state, (scalars, arrays) = map_over(run_steps, seeds)((state, root), shared)
        return state, {name: finite_mean(value) for name, value in scalars.items()}, arrays

    return run_chunk


def _without_axis(leaf: Any) -> Any:
    """Return the shape and dtype of an array without its leading axis."""
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def _evaluate_seeds(evaluate: Callable[..., Any], seeds: int) -> Callable[..., Any]:
    """Return the evaluation of several seeds: means over those that are not lost."""

    def evaluate_all(state: SeedsState, data: Any, keys: jax.Array) -> dict[str, jax.Array]:
        def evaluate_seed(state_and_key: Any, data: Any) -> dict[str, jax.Array]:
            return evaluate(state_and_key[0], data, state_and_key[1])

        scalars = map_over(evaluate_seed, seeds)((state.state, keys), data)
        return {
            name: finite_mean(jnp.where(state.lost, jnp.nan, value))
            for name, value in scalars.items()
        }

    return evaluate_all


def _columns(step_scalars: Any, eval_scalars: Any, seeds: int) -> list[str]:
    return csv_columns([*step_scalars, *eval_scalars, *([LOST_SEEDS] if seeds > 1 else [])])


def _host_programs(system: System, init: Any, chunk: int, seeds: int) -> Programs:
    """Return the system's own functions, one call per step, one seed after another."""
    assert system.host_metrics is not None
    step_scalars, eval_scalars = system.host_metrics

    def run_steps(state: State, data: Any, root: jax.Array, first: Any, count: Any) -> Any:
        buffers = {name: np.zeros(chunk, np.float32) for name in step_scalars}
        for index in range(count):
            key = jax.random.fold_in(root, first + index)
            if seeds == 1:
                state, scalars, _ = system.step(state, data, key)
            else:
                state, scalars, _ = unless_lost(state, *system.step(state.state, data, key))
            for name, buffer in buffers.items():
                buffer[index] = scalars[name]
        return state, buffers

    def run_chunk(state: State, data: Any, root: jax.Array, first: Any, count: Any) -> Any:
        if seeds == 1:
            return *run_steps(state, data, root, first, count), {}
        chunks = [
            run_steps(seed_state, data, key, first, count)
            for seed_state, key in _by_seed(state, root)
        ]
        states, buffers = zip(*chunks, strict=True)
        state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        return state, _means_over_seeds(buffers), {}

    def evaluate(state: State, data: Any, keys: jax.Array) -> dict[str, Any]:
        if seeds == 1:
            return system.evaluate(state, data, keys)
        scalars = [
            system.evaluate(seed_state.state, data, key)
            for seed_state, key in _by_seed(state, keys)
            if not seed_state.lost
        ]
        return _means_over_seeds(scalars)

    columns = _columns(step_scalars, eval_scalars, seeds)
    remedy = system.remedy
    return Programs(init, run_chunk, lambda *_: run_chunk, evaluate, None, columns, (), remedy)


def _by_seed(state: SeedsState, keys: jax.Array) -> list[tuple[SeedsState, jax.Array]]:
    """Return the state and the key of each seed."""
    return [(jax.tree.map(itemgetter(seed), state), keys[seed]) for seed in range(len(keys))]


def _means_over_seeds(scalars: Any) -> dict[str, np.ndarray]:
    """Return the means of each seed's finite scalars, by name; NaN where none is finite."""
    stacked = {name: np.stack([np.asarray(seed[name]) for seed in scalars]) for name in scalars[0]}
    return {name: np.asarray(finite_mean(jnp.asarray(value))) for name, value in stacked.items()}


def _check_scalars(step_scalars: Any, eval_scalars: Any) -> None:
    for scalars in (step_scalars, eval_scalars):
        for name, value in scalars.items():
            if value.shape:
                raise ValueError(f"metric {name!r} must be a scalar, but has shape {value.shape}")
    objective_of(step_scalars)
