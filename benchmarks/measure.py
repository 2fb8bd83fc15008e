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


class Cost(NamedTuple):
    """What one unit of work needs at least of the machine.

    amount: FLOP, or bytes moved. probe: (sizes) -> what the machine does at present, by name, in
    `amount` per second; the best of them counts.
    """

    amount: float
    unit: str
    probe: Callable[[Sizes], Rates]


class Work(NamedTuple):
    """One call of a program, and the least time it could take.

    function: (state, number of the call, *arguments) -> (state, outputs); the state is donated.
    units: steps or updates that one call makes. costs: of one unit, paid one after another.
    compiled: whether the function is to be compiled as a whole; if not, it is called as it is.
    """

    function: Callable[..., tuple[Any, Any]]
    state: Any
    arguments: tuple[Any, ...]
    units: int
    costs: tuple[Cost, ...]
    compiled: bool = True


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
    """What to call, the seconds that tracing, lowering and compiling it took, and its buffers."""

    call: Callable[..., tuple[Any, Any]]
    lower_seconds: float = 0.0
    xla_seconds: float = 0.0
    memory: Row | None = None


def compile_ahead(work: Work) -> Program:
    """Compile the work's program, its state donated, unless its function is called as it is."""
    if not work.compiled:
        return Program(work.function)
    began = time.perf_counter()
    jitted = jax.jit(work.function, donate_argnums=0)
    lowered = jitted.lower(work.state, np.int32(0), *work.arguments)
    lowered_at = time.perf_counter()
    compiled = lowered.compile()
    xla_seconds = time.perf_counter() - lowered_at
    return Program(compiled, lowered_at - began, xla_seconds, _program_memory(compiled))


def measure(work: Work, repeats: int, sizes: Sizes) -> Row:
    """Seconds per unit of `repeats` calls, the machine being measured before, between and after.

    ratio: the fastest call over the best rate; ratio_median: the median call over the median
    rate. Memory is read before the machine's own measurements, whose arrays do not count.
    """
    program = compile_ahead(work)
    seconds, probed, memory = _interleave(work, program.call, repeats, sizes)
    best = [_over_time(rates, max) for rates in probed]
    roofline = _roofline(work.costs, best)
    median_roofline = _roofline(work.costs, [_over_time(r, statistics.median) for r in probed])
    return {
        "seconds_min": min(seconds),
        "seconds_median": statistics.median(seconds),
        "roofline_seconds": roofline,
        "ratio": min(seconds) / roofline,
        "ratio_median": statistics.median(seconds) / median_roofline,
        "costs": {cost.unit: cost.amount for cost in work.costs},
        "repeats": repeats,
        "units_per_call": work.units,
        **memory,
        **(program.memory or {}),
        "compile_seconds": program.lower_seconds + program.xla_seconds,
        "lower_seconds": program.lower_seconds,
        "xla_seconds": program.xla_seconds,
        **{f"rate_{name}": rate for rates in best for name, rate in rates.items()},
    }


def _over_time(rates: list[Rates], choose: Callable[[list[float]], float]) -> Rates:
    """One rate of each name out of those measured at several times."""
    return {name: choose([rate[name] for rate in rates]) for name in rates[0]}


def _roofline(costs: tuple[Cost, ...], rates: list[Rates]) -> float:
    """Seconds of one unit at the best of each cost's rates."""
    return sum(cost.amount / max(rate.values()) for cost, rate in zip(costs, rates, strict=True))


def _interleave(
    work: Work, function: Callable[..., tuple[Any, Any]], repeats: int, sizes: Sizes
) -> tuple[list[float], list[list[Rates]], Row]:
    """Seconds per unit, each cost's rates at several times, and peak memory."""
    state = work.state
    for call in range(WARM_UP):
        state, _ = jax.block_until_ready(function(state, np.int32(call), *work.arguments))
    memory = {
        "peak_memory_bytes": machine.peak_memory(),
        "device_peak_memory_bytes": machine.device_peak_memory(),
    }
    seconds: list[float] = []
    probed = [[cost.probe(sizes)] for cost in work.costs]
    for calls in np.array_split(np.arange(repeats, dtype=np.int32), min(ROUNDS, repeats)):
        for call in calls:
            began = time.perf_counter()
            state, _ = jax.block_until_ready(function(state, call + WARM_UP, *work.arguments))
            seconds.append((time.perf_counter() - began) / work.units)
        for rates, cost in zip(probed, work.costs, strict=True):
            rates.append(cost.probe(sizes))
    return seconds, probed, memory


def _program_memory(compiled: jax.stages.Compiled) -> Row:
    """XLA's own account of the program's buffers, bytes; what is donated counts once."""
    analysis = compiled.memory_analysis()
    names = ("argument", "output", "alias", "temp")
    sizes = {name: getattr(analysis, f"{name}_size_in_bytes", None) for name in names}
    return {f"program_{name}_bytes": size for name, size in sizes.items()}
