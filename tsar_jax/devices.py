"""Many at once: seeds, runs or members of a population over devices, and in turn on each."""

import contextlib
import contextvars
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DEVICE_COUNT = "xla_force_host_platform_device_count"
"""Flag of XLA by which users split a CPU into devices themselves."""

SHARE = "share"
"""The axis of devices."""

_within_share: contextvars.ContextVar[bool] = contextvars.ContextVar("within_share", default=False)
"""Whether what is traced is a share that one of several devices takes."""


def split_cpu() -> None:
    """Makes each core of a CPU a device of its own: call before the first computation.

    For programs that are many small ones, which a core each serves better than all cores in turn.
    Once computing has begun it is too late, and nothing changes; nor where the user's own settings
    say how many devices there are: XLA_FLAGS or JAX_NUM_CPU_DEVICES.
    """
    if DEVICE_COUNT in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", usable_cores())


def missing_platform() -> str:
    """Return a sentence on the platform that JAX was told to use and cannot; "" if it has one.

    JAX itself ends in an AssertionError where JAX_PLATFORMS=cuda finds no GPU.
    """
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        platforms = getattr(jax.config, "jax_platforms", None)
        reason = str(error).partition("\n")[0] or "JAX finds no such device"
        return (
            f"JAX_PLATFORMS={platforms} cannot be used here ({reason}): unset "
            "JAX_PLATFORMS, or install JAX for that platform."
        )
    return ""


def by_platform(*args: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """Return cpu(*args) where it runs on a CPU, and default(*args) on any other device.

    As `lax.platform_dependent`, which traces, differentiates and batches both. Where JAX has CPUs
    alone, `cpu` alone is: for networks that consist of such layers that is a third of what a
    training takes to start, and the compiled program is the same. (A program exported there for
    another platform has the form for CPUs too: right, but slow.)
    """
    if only_cpus():
        return cpu(*args)
    return lax.platform_dependent(*args, cpu=cpu, default=default)


@functools.cache
def only_cpus() -> bool:
    """Return whether JAX has no device but CPUs; its platforms do not change once it has begun."""
    from jax.extend import backend

    return set(backend.backends()) == {"cpu"}


def usable_cores() -> int:
    """Cores that this process may run on; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_all_devices(tree: Any) -> Any:
    """The same arrays, within a program, on every device: where shares of them are made later."""
    if jax.device_count() == 1 or _within_share.get():
        return tree
    everywhere = NamedSharding(Mesh(np.asarray(jax.devices()), ("all",)), P())
    return lax.with_sharding_constraint(tree, everywhere)


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
    function: Callable[[Any, Any], Any],
    count: int,
    devices: Sequence[jax.Device] | None = None,
    *,
    together: bool = False,
) -> Callable[[Any, Any], Any]:
    """function(one, shared) for each of `count` (leading axis of the first argument).

    Spread over the devices (default: this process's), each of which takes its share as
    `one_by_one` does, or all at once if together: for a function so short that on a CPU taking
    turns would cost more than itself. Where the number of devices does not divide the count, the
    last of them do some of the first ones again. Within a device's share, as of the population of
    one of several seeds, there is but that device.
    """
    devices = jax.local_devices() if devices is None else devices

    def share(each: Any, shared: Any) -> Any:
        take = jax.vmap if together else one_by_one
        return take(lambda item: function(item, shared))(each)

    def mapped(each: Any, shared: Any) -> Any:
        if len(devices) == 1 or _within_share.get():
            return share(each, shared)
        padded = math.ceil(count / len(devices)) * len(devices)
        spread = _sharded(share, devices, (P(SHARE), P()))
        if padded == count:
            return spread(each, shared)
        each = jax.tree.map(lambda leaf: leaf[jnp.arange(padded) % count], each)
        return jax.tree.map(lambda leaf: leaf[:count], spread(each, shared))

    return mapped


def on_each_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """function(*share) on each of this process's devices: of arrays [devices, ...], its own.

    What it returns gets the axis of devices again.
    """

    def one(*shares: Any) -> Any:
        own = function(*jax.tree.map(lambda leaf: leaf[0], shares))
        return jax.tree.map(lambda leaf: leaf[None], own)

    devices = jax.local_devices()
    if len(devices) == 1:
        return one
    return _sharded(one, devices, P(SHARE))


def _sharded(
    function: Callable[..., Any], devices: Sequence[jax.Device], in_specs: Any
) -> Callable[..., Any]:
    """function on each of the devices, whose results are joined along their leading axes."""
    mesh = Mesh(np.asarray(devices), (SHARE,))

    def within_share(*arguments: Any) -> Any:
        token = _within_share.set(True)
        try:
            return function(*arguments)
        finally:
            _within_share.reset(token)

    return jax.shard_map(
        within_share, mesh=mesh, in_specs=in_specs, out_specs=P(SHARE), check_vma=False
    )
