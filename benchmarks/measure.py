"""What a benchmark is, and how one is measured: its time over the least the machine allows."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import machine
from benchmarks.machine import Rates, Sizes

Row = dict[str, Any]

WARM_UP = 3
ROUNDS = 3


class Work(NamedTuple):
    """One call of a program, and the least time it could take.

    function: (state, number of the call, *arguments) -> (state, outputs); the state is donated.
    units: steps or updates that one call makes. amount: FLOP, or bytes moved, of one unit.
    probe: (sizes) -> what the machine does at present, by name, in `amount` per second.
    """

    function: Callable[..., tuple[Any, Any]]
    state: Any
    arguments: tuple[Any, ...]
    units: int
    amount: float
    amount_unit: str
    probe: Callable[[Sizes], Rates]


class Targets(NamedTuple):
    """The most that is wanted; None: nothing said.

    ratio: time over roofline. compile_seconds: tracing, lowering and XLA's compilation.
    """

    ratio: float | None = None
    peak_memory_bytes: float | None = None
    compile_seconds: float | None = None


class Benchmark(NamedTuple):
    """A named measurement.

    full: makes the work to be measured. small: the same at tiny width, to see that it runs.
    optional: only measured where it is named.
    """

    name: str
    description: str
    full: Callable[[], Work]
    small: Callable[[], Work]
    targets: Targets = Targets()
    optional: bool = False


class Program(NamedTuple):
    """A compiled program and the seconds it took: trace and lower, then compile."""

    compiled: jax.stages.Compiled
    lower_seconds: float
    xla_seconds: float


def compile_ahead(work: Work) -> Program:
    """Compile the work's program, its state donated."""
    began = time.perf_counter()
    jitted = jax.jit(work.function, donate_argnums=0)
    lowered = jitted.lower(work.state, np.int32(0), *work.arguments)
    lowered_at = time.perf_counter()
    compiled = lowered.compile()
    return Program(compiled, lowered_at - began, time.perf_counter() - lowered_at)


def measure(work: Work, repeats: int, sizes: Sizes) -> Row:
    """Seconds per unit of `repeats` calls, the machine being measured before, between and after.

    ratio: the fastest call over the best rate; ratio_median: the median call over the median
    rate. Memory is read before the machine's own measurements, whose arrays do not count.
    """
    program = compile_ahead(work)
    seconds, rates, memory = _interleave(work, program.compiled, repeats, sizes)
    best = {name: max(rate[name] for rate in rates) for name in rates[0]}
    median = {name: statistics.median(rate[name] for rate in rates) for name in rates[0]}
    roofline = work.amount / max(best.values())
    median_roofline = work.amount / max(median.values())
    return {
        "seconds_min": min(seconds),
        "seconds_median": statistics.median(seconds),
        "roofline_seconds": roofline,
        "ratio": min(seconds) / roofline,
        "ratio_median": statistics.median(seconds) / median_roofline,
        "amount": work.amount,
        "amount_unit": work.amount_unit,
        "repeats": repeats,
        "units_per_call": work.units,
        **memory,
        **_program_memory(program.compiled),
        "compile_seconds": program.lower_seconds + program.xla_seconds,
        "lower_seconds": program.lower_seconds,
        "xla_seconds": program.xla_seconds,
        **{f"rate_{name}": rate for name, rate in best.items()},
        **{f"ratio_{name}": min(seconds) * rate / work.amount for name, rate in best.items()},
    }


def _interleave(
    work: Work, compiled: jax.stages.Compiled, repeats: int, sizes: Sizes
) -> tuple[list[float], list[Rates], Row]:
    """Seconds per unit, rates, and peak memory."""
    state = work.state
    for call in range(WARM_UP):
        state, _ = jax.block_until_ready(compiled(state, np.int32(call), *work.arguments))
    memory = {
        "peak_memory_bytes": machine.peak_memory(),
        "device_peak_memory_bytes": machine.device_peak_memory(),
    }
    seconds, rates = [], [work.probe(sizes)]
    for calls in np.array_split(np.arange(repeats, dtype=np.int32), min(ROUNDS, repeats)):
        for call in calls:
            began = time.perf_counter()
            state, _ = jax.block_until_ready(compiled(state, call + WARM_UP, *work.arguments))
            seconds.append((time.perf_counter() - began) / work.units)
        rates.append(work.probe(sizes))
    return seconds, rates, memory


def _program_memory(compiled: jax.stages.Compiled) -> Row:
    """XLA's own account of the program's buffers, bytes; what is donated counts once."""
    analysis = compiled.memory_analysis()
    names = ("argument", "output", "alias", "temp")
    sizes = {name: getattr(analysis, f"{name}_size_in_bytes", None) for name in names}
    return {f"program_{name}_bytes": size for name, size in sizes.items()}
