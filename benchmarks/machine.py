"""What the machine is, and what it does at best, measured through JAX itself."""

import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.devices import usable_cores

Rates = dict[str, float]


class Sizes(NamedTuple):
    """How large the machine's own measurements are.

    square: side of the square matrix product. memory: bytes of an array that no cache holds.
    tries: products or passes, of which the fastest counts.
    """

    square: int = 2048
    memory: int = 2**28
    tries: int = 5


SMALL = Sizes(square=128, memory=2**22, tries=2)


def describe() -> dict[str, Any]:
    """Processor, software and settings that matter to the times."""
    device = jax.devices()[0]
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "backend": device.platform,
        "device": device.device_kind,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "jax": jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def fastest(call: Callable[[], Any], tries: int) -> float:
    """Least seconds of several calls, after one that does not count."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(tries):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return min(seconds)


@jax.jit
def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    return left @ right


def matmul_rate(rows: int, inner: int, columns: int, tries: int) -> float:
    """FLOP/s of a float32 product [rows, inner] x [inner, columns], the best of `tries`."""
    left, right = jnp.full((rows, inner), 0.5), jnp.full((inner, columns), 0.5)
    return 2 * rows * inner * columns / fastest(lambda: _product(left, right), tries)


def matmul_rates(sizes: Sizes, shapes: tuple[tuple[int, int, int], ...] = ()) -> Rates:
    """FLOP/s of the square product and of products of other shapes (rows, inner, columns)."""
    square = (sizes.square,) * 3
    return {
        "matmul_" + "x".join(map(str, shape)): matmul_rate(*shape, sizes.tries)
        for shape in (square, *shapes)
    }


def _scale(x: jax.Array, passes: jax.Array) -> jax.Array:
    return lax.fori_loop(0, passes, lambda _, x: 0.999 * x + 1e-3, x)


_scale_in_place = jax.jit(_scale, donate_argnums=0)


def stream_rate(array_bytes: int, tries: int) -> float:
    """Bytes per second, read and written, of x <- a x + b in place, the best of `tries`.

    As an optimiser's update does, a pass reads everything once and writes it back over the same
    pages. An array is passed over several times in one call, so a small one may stay in a cache.
    """
    x = jnp.ones(max(1, array_bytes // 4))
    passes = math.ceil(2**29 / max(array_bytes, 2**23))

    def call() -> jax.Array:
        nonlocal x
        x = _scale_in_place(x, jnp.int32(passes))
        return x

    return 2 * x.nbytes * passes / fastest(call, tries)


def stream_rates(sizes: Sizes, working_sets: tuple[int, ...] = ()) -> Rates:
    """Bytes/s through main memory, and through arrays as large as some working sets."""
    return {
        f"stream_{array_bytes / 1e6:.3g}MB": stream_rate(array_bytes, sizes.tries)
        for array_bytes in (sizes.memory, *working_sets)
    }


def peak_memory() -> int | None:
    """Most bytes that this process has held in main memory so far.

    Linux's VmHWM rather than `ru_maxrss`, which begins at the peak of the parent process.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return _ru_maxrss()
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0][1]) * 1024 if lines else _ru_maxrss()


def _ru_maxrss() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_peak_memory() -> int | None:
    """Most bytes held on the accelerator so far; None on a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")
