"""Many at once: seeds, runs or members of a population over devices, and in turn on each."""

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


def split_cpu() -> None:
    """Makes each core of a CPU a device of its own: call before the first computation.

    For programs that are many small ones, which a core each serves better than all cores in turn.
    Once computing has begun it is too late, and nothing changes.
    """
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", usable_cores())


def usable_cores() -> int:
    """Cores that this process may run on; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_over(function: Callable[[Any, Any], Any], count: int) -> Callable[[Any, Any], Any]:
    """function(one, shared) for each of `count` (leading axis of the first argument).

    Spread evenly over the local devices, as far as their number divides. An accelerator takes all
    of its share together; a CPU one after another, whose working set then stays in its cache.
    """
    devices = jax.local_devices()
    used = math.gcd(count, len(devices))

    def share(each: Any, shared: Any) -> Any:
        def one(item: Any) -> Any:
            return function(item, shared)

        return lax.map(one, each) if jax.default_backend() == "cpu" else jax.vmap(one)(each)

    if used == 1:
        return share
    mesh = Mesh(devices[:used], ("share",))
    return jax.shard_map(
        share, mesh=mesh, in_specs=(P("share"), P()), out_specs=P("share"), check_vma=False
    )
