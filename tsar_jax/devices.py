"""Many at once: seeds, runs or members of a population over devices, and in turn on each."""

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


def one_by_one(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """function of each (leading axis): together on an accelerator, in turn on a CPU.

    A CPU's cache then holds what one of them works on.
    """

    def each(items: Any) -> Any:
        if jax.default_backend() == "cpu":
            return lax.map(function, items)
        return jax.vmap(function)(items)

    return each


def map_over(
    function: Callable[[Any, Any], Any], count: int, devices: Sequence[jax.Device] | None = None
) -> Callable[[Any, Any], Any]:
    """function(one, shared) for each of `count` (leading axis of the first argument).

    Spread over the devices (default: this process's), each of which takes its share as
    `one_by_one` does. Where the number of devices does not divide the count, the last of them do
    some of the first again.
    """
    devices = jax.local_devices() if devices is None else devices
    in_turn = math.ceil(count / len(devices))
    used = math.ceil(count / in_turn)

    def share(each: Any, shared: Any) -> Any:
        return one_by_one(lambda item: function(item, shared))(each)

    if used == 1:
        return share
    mesh = Mesh(np.asarray(devices[:used]), ("share",))
    spread = jax.shard_map(
        share, mesh=mesh, in_specs=(P("share"), P()), out_specs=P("share"), check_vma=False
    )
    excess = used * in_turn - count
    if not excess:
        return spread

    def padded(each: Any, shared: Any) -> Any:
        each = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:excess]]), each)
        return jax.tree.map(lambda leaf: leaf[:count], spread(each, shared))

    return padded
