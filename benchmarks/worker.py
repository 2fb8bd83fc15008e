"""One benchmark in a process of its own, so that peak memory and compile time are its own.

`python -m benchmarks.worker NAME WIDTHS REPEATS PRECISION` prints the row as JSON, its last line;
the name "machine" measures the machine alone.
"""

import json
import sys
from typing import Any, Literal

import jax

from benchmarks import machine
from benchmarks.measure import Row, Targets, measure
from benchmarks.suite import choose

Widths = Literal["paper", "small"]
MACHINE = "machine"


def run_one(name: str, widths: Widths, repeats: int, precision: str) -> Row:
    """The row of one benchmark, or of the machine; targets hold for the paper's widths only."""
    with jax.default_matmul_precision(precision):
        return _run_one(name, widths, repeats)


def _run_one(name: str, widths: Widths, repeats: int) -> Row:
    sizes = machine.SMALL if widths == "small" else machine.Sizes()
    if name == MACHINE:
        return _machine(sizes)
    (benchmark,) = choose([name])
    work = benchmark.small() if widths == "small" else benchmark.full()
    targets = Targets() if widths == "small" else benchmark.targets
    return {
        "name": name,
        "description": benchmark.description,
        "widths": widths,
        **measure(work, repeats, sizes),
        "target": targets.ratio,
        "peak_memory_target": targets.peak_memory_bytes,
        "compile_target": targets.compile_seconds,
    }


def _machine(sizes: machine.Sizes) -> dict[str, Any]:
    """What the machine is, its matrix-product rate (FLOP/s) and memory bandwidth (byte/s)."""
    products, streams = machine.matmul_rates(sizes), machine.stream_rates(sizes)
    return {
        **machine.describe(),
        "flops_per_second": max(products.values()),
        "bytes_per_second": max(streams.values()),
        **products,
        **streams,
    }


def main() -> int:
    name, widths, repeats, precision = sys.argv[1:]
    assert widths in ("paper", "small")
    # What an earlier process compiled must not make this one's compilation look short.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        row = run_one(name, widths, int(repeats), precision)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        return 130
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
