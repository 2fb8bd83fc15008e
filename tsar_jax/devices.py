"""Mapping of functions over seeds, runs or members of a population, spread over devices."""

import contextlib
import contextvars
import functools
import itertools
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

from tsar_jax import processes

DEVICE_COUNT = "xla_force_host_platform_device_count"
"""Flag of XLA by which users split a CPU into devices themselves."""

AXIS = "share"
"""Name of the mesh axis of devices."""

_within_shard: contextvars.ContextVar[bool] = contextvars.ContextVar("within_shard", default=False)
"""Whether the function being traced is already one of several devices' part of a computation."""


def split_cpu() -> None:
    """Make each core of a CPU a device of its own; to be called before the first computation.

    Many small programs run faster with a core each than one after another on all cores. After the
    first computation nothing changes any more, nor where the user has set the number of devices by
    XLA_FLAGS or JAX_NUM_CPU_DEVICES.
    """
    if DEVICE_COUNT in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", usable_cores())


def missing_platform() -> str:
    """Return an error message if JAX cannot use the platform that it was told to use, else "".

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
    """Return cpu(*args) on a CPU and default(*args) on any other device.

    It is `lax.platform_dependent`, which traces, differentiates and batches both functions, except
    that only `cpu` is traced where JAX has nothing but CPUs: for networks of such layers that saves
    a third of a training's time to start, and the compiled program is the same. (A program exported
    there for another platform has the form for CPUs too: correct, but slow.)
    """
    if only_cpus():
        return cpu(*args)
    return lax.platform_dependent(*args, cpu=cpu, default=default)


@functools.cache
def only_cpus() -> bool:
    """Return whether JAX has no devices but CPUs.

    The answer is kept, for JAX's platforms do not change after its first use.
    """
    from jax.extend import backend

    return set(backend.backends()) == {"cpu"}


def usable_cores() -> int:
    """Return the number of cores that this process may use, or of all if that is unknown."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_all_devices(tree: Any) -> Any:
    """Return the arrays, within a compiled program, copied to every device of all processes."""
    if spread_devices() == 1:
        return tree
    return lax.with_sharding_constraint(tree, processes.everywhere())


def one_by_one(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the function mapped over a leading axis: batched on accelerators, in turn on a CPU.

    On a CPU the cache then holds the working set of one item.
    """

    def mapped(items: Any) -> Any:
        if jax.default_backend() == "cpu":
            return lax.map(function, items)
        return jax.vmap(function)(items)

    return mapped


def map_over(
    function: Callable[[Any, Any], Any],
    count: int,
    *,
    together: bool = False,
) -> Callable[[Any, Any], Any]:
    """Return the function mapped over its first argument's leading axis.

    The items are spread over the devices, in a training of several processes those of all.
    A call within another `map_over`, as for the population of one of several seeds, stays on its
    device.

    Args:
        function: (item, shared) -> result.
        count: number of items. Where the number of devices does not divide it, some of the first
            items are computed twice.
        together: whether a device computes its items in one batch, as for a function so short that
            on a CPU a loop would cost more than itself; else as `one_by_one` does.

    Returns:
        A function (items [count, ...], shared) -> results [count, ...].
    """

    def on_one_device(items: Any, shared: Any) -> Any:
        map_items = jax.vmap if together else one_by_one
        return map_items(lambda item: function(item, shared))(items)

    def mapped(items: Any, shared: Any) -> Any:
        number = spread_devices()
        if number == 1:
            return on_one_device(items, shared)
        padded = math.ceil(count / number) * number
        on_devices = _sharded(on_one_device, processes.devices(), (P(AXIS), P()), P(AXIS))
        if padded == count:
            return on_devices(items, shared)
        items = jax.tree.map(lambda leaf: leaf[jnp.arange(padded) % count], items)
        return jax.tree.map(lambda leaf: leaf[:count], on_devices(items, shared))

    return mapped


def spread_devices() -> int:
    """Return the number of devices that `map_over` spreads its items over."""
    return 1 if _within_shard.get() else len(processes.devices())


def spreads(count: int) -> bool:
    """Return whether there are several devices to spread over, and their number divides a count."""
    return spread_devices() > 1 and count % spread_devices() == 0


def mean_over(function: Callable[[Any, Any], Any], count: int) -> Callable[[Any, Any], Any]:
    """Return a function that is a mean over items, computed in parts by several devices.

    Where the number of devices does not divide the count, each computes the mean over all.

    Args:
        function: (items [n, ...], shared) -> a tree of means over the n items, for any n.
        count: number of items.

    Returns:
        A function (items [count, ...], shared) -> the tree of means over all of them.
    """

    def on_one_device(items: Any, shared: Any) -> Any:
        return _means(function(items, shared))

    def mean(items: Any, shared: Any) -> Any:
        if not spreads(count):
            return function(items, shared)
        on_devices = _sharded(on_one_device, processes.devices(), (P(AXIS), P()), P())
        return on_devices(items, shared)

    return mean


def on_shares(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return the function run once on each of the devices that `map_over` spreads over.

    Args:
        function: (share, shared) -> result.

    Returns:
        A function (shares [devices, ...], shared) -> results [devices, ...].
    """

    def on_one_device(shares: Any, shared: Any) -> Any:
        result = function(jax.tree.map(lambda leaf: leaf[0], shares), shared)
        return jax.tree.map(lambda leaf: leaf[None], result)

    return _sharded(on_one_device, processes.devices(), (P(AXIS), P()), P(AXIS))


Affine = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(x [N, K], matrix [K, D], row [D]) -> [N, D], a column from each column and element."""


def by_columns(
    function: Affine, x: jax.Array, matrices: Sequence[jax.Array], rows: Sequence[jax.Array]
) -> list[jax.Array]:
    """Return function(x, matrix, row) of every matrix, each device computing its own columns.

    Where the number of devices does not divide all numbers of columns, each computes everything.

    All columns are gathered at once, and gradients of x summed at once: on a CPU two collective
    operations that do not depend on each other may be begun in another order by each device, and
    then wait for each other for ever.

    Args:
        function: of one matrix.
        x: [N, K]. matrices: [K, D] each. rows: [D] each.

    Returns:
        The results [N, D], which every device holds whole.
    """
    sizes = [row.shape[-1] for row in rows]
    if not all(map(spreads, sizes)):
        return [function(x, matrix, row) for matrix, row in zip(matrices, rows, strict=True)]
    number = spread_devices()

    def own_columns(
        x: jax.Array, matrices: Sequence[jax.Array], rows: Sequence[jax.Array]
    ) -> jax.Array:
        parts = [function(x, matrix, row) for matrix, row in zip(matrices, rows, strict=True)]
        return jnp.concatenate(parts, -1)

    specs = P(), P(None, AXIS), P(AXIS)
    on_devices = _sharded(own_columns, processes.devices(), specs, P(None, AXIS))
    gathered = on_all_devices(on_devices(x, tuple(matrices), tuple(rows)))
    by_device = gathered.reshape(x.shape[0], number, -1)
    ends = list(itertools.accumulate(size // number for size in sizes))
    parts = jnp.split(by_device, ends[:-1], -1)
    return [part.reshape(x.shape[0], -1) for part in parts]


def divide_last_axis(tree: Any, names: tuple[str, ...]) -> Any:
    """Return the arrays, within a compiled program, placed on all devices.

    Args:
        tree: the arrays.
        names: arrays whose path, such as `params/a/kernel`, ends in one of these have a part of
            their last axis on each device, where the number of devices divides it; all others are
            on each device whole.
    """
    if spread_devices() == 1:
        return tree
    mesh = Mesh(np.asarray(processes.devices()), (AXIS,))

    def place(path: Any, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not (name.endswith(names) and spreads(leaf.shape[-1])):
            return on_all_devices(leaf)
        parts = P(*[None] * (leaf.ndim - 1), AXIS)
        return lax.with_sharding_constraint(leaf, NamedSharding(mesh, parts))

    return jax.tree_util.tree_map_with_path(place, tree)


def _means(tree: Any) -> Any:
    """Return the means over devices of a tree's arrays, on a CPU one after another.

    There each is made to depend on the one before, for the reason that `by_columns` gives.
    """
    leaves, structure = jax.tree.flatten(tree)
    means: list[jax.Array] = []
    for leaf in leaves:
        if means and leaf.size and means[-1].size:
            leaf = by_platform(leaf, means[-1], cpu=_after, default=lambda leaf, _: leaf)
        means.append(lax.pmean(leaf, AXIS))
    return jax.tree.unflatten(structure, means)


def _after(leaf: jax.Array, before: jax.Array) -> jax.Array:
    """Return an array that cannot be had before another: NaN where that begins with NaN."""
    return leaf + (0 * before.reshape(-1)[0]).astype(leaf.dtype)


def on_each_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function mapped over arrays [devices, ...], a row on each device of this process.

    The results are arrays [devices, ...] again.
    """

    def on_one_device(*rows: Any) -> Any:
        result = function(*jax.tree.map(lambda leaf: leaf[0], rows))
        return jax.tree.map(lambda leaf: leaf[None], result)

    devices = jax.local_devices()
    if len(devices) == 1:
        return on_one_device
    return _sharded(on_one_device, devices, P(AXIS), P(AXIS))


def _sharded(
    function: Callable[..., Any],
    devices: Sequence[jax.Device],
    in_specs: Any,
    out_specs: Any,
) -> Callable[..., Any]:
    """Return the function run on each device.

    out_specs: P(AXIS) where results are concatenated along their leading axes, P() where they are
        the same on all devices.
    """
    mesh = Mesh(np.asarray(devices), (AXIS,))

    def within_shard(*arguments: Any) -> Any:
        token = _within_shard.set(True)
        try:
            return function(*arguments)
        finally:
            _within_shard.reset(token)

    return jax.shard_map(
        within_shard, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
