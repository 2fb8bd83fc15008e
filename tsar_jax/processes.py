"""Several processes that take part in one training, each with devices of its own.

JAX's runtime connects them. All run the same program on the devices of all; the first one alone
writes files and shows progress. A checkpoint is whole, so that a run goes on with any number of
processes.
"""

import contextlib
import contextvars
import ctypes
import functools
import hashlib
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from tsar_jax.errors import ProcessLost, UserError
from tsar_jax.random_keys import is_key, wrap_key

Result = TypeVar("Result")

CONNECT_SECONDS = 60
"""Time within which all processes must have come, or all of them stop."""
HEARTBEAT_SECONDS = 10
"""Time without a sign of life after which JAX's runtime takes a process for lost."""
WATCH_SECONDS = 1
"""Time between two looks at which processes are alive."""
GRACE_SECONDS = 3
"""Time that a training has to stop by itself where a process is lost.

With `WATCH_SECONDS` it is less than the six that `_delay_aborts` gives."""

LOST = re.compile(
    r"gloo|coordination|distributed (service|runtime)|heartbeat|socket closed|"
    r"connection (closed|reset|refused)|broken pipe|peer",
    re.IGNORECASE,
)
"""Words of errors that JAX's runtime raises where another process cannot be reached."""


class Place(NamedTuple):
    """The place of a process among those of a training.

    coordinator: HOST:PORT of the first process; None: the cluster says where, as it says the rest.
    processes: how many there are. process: which of them this is, from 0.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


_joined = False
_alone: contextvars.ContextVar[bool] = contextvars.ContextVar("alone", default=False)
_left = threading.Event()
_remedy = "repeat the command."


def join(place: Place) -> None:
    """Connect this process with the others; call it before anything is computed.

    The standard output of all but the first goes nowhere from then on.

    Raises:
        UserError: the others have not come in time, or the place is taken or not known.
    """
    global _joined
    try:
        from jax.experimental.multihost_utils import live_devices  # noqa: F401

        # Without it JAX ends the process itself, with a stack trace, where another one is lost.
        jax.config.update("jax_enable_recoverability", True)
    except (ImportError, AttributeError):
        raise UserError(
            f"Several processes need a newer JAX than {jax.__version__}: upgrade it."
        ) from None
    with _giving_up(), _silent_output():
        try:
            jax.distributed.initialize(
                place.coordinator,
                place.processes,
                place.process,
                # `_giving_up` comes first, for JAX would abort.
                initialization_timeout=2 * CONNECT_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
            _joined = jax.process_count() > 1
            if _joined:
                meet()  # which connects each with each, now and not in mid-training
        except (RuntimeError, ValueError) as error:
            raise UserError(_not_found(str(error).partition("\n")[0][:200])) from error
    if not is_first():
        _discard_output(1)
    if _joined:
        _delay_aborts()
        threading.Thread(target=_watch, daemon=True).start()


def several() -> bool:
    """Return whether several processes take part in a training now."""
    return _joined


def is_first() -> bool:
    """Return whether this process writes the files and shows the progress."""
    return _process_index() == 0


def leave() -> None:
    """Part from the others at the end of a training; all but the first process end here."""
    global _joined
    first = is_first()
    meet()
    _left.set()
    _joined = False
    jax.clear_caches()  # programs that were compiled for the devices of all
    if not first:
        # Without JAX's own farewell, which aborts where the first process has ended before.
        sys.stderr.flush()
        os._exit(0)


def meet() -> None:
    """Return when all processes have called this as often as this one."""
    if _joined:
        _all(np.zeros(1, np.int32))


def devices() -> list[jax.Device]:
    """Return the devices that a computation is spread over: of all processes, or of this one."""
    return jax.devices() if _joined and not _alone.get() else jax.local_devices()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let what is computed in the block use this process's devices only, with arrays of its own."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def own_copy(tree: Any) -> Any:
    """Return arrays that every device holds whole, as arrays of this process alone."""
    return jax.tree.map(_own_leaf, tree) if _joined else tree


def _own_leaf(leaf: jax.Array) -> jax.Array:
    # By way of the host: an array that is bound to one device cannot be spread over several.
    if is_key(leaf):
        return wrap_key(_own_leaf(jax.random.key_data(leaf)), leaf)
    return jnp.asarray(np.asarray(leaf.addressable_data(0)))


def own_share(count: int) -> np.ndarray:
    """Return which of `count` items this process computes: as many in each, some of them twice."""
    size = math.ceil(count / _process_count())
    return _share_start(_process_index(), size, count) + np.arange(size)


def _share_start(process: int, size: int, count: int) -> int:
    return min(process * size, count - size)


def join_shares(tree: Any, count: int) -> Any:
    """Return results of all `count` items from those of each process's `own_share`.

    tree: arrays [size of a share, ...].
    """
    if not _joined:
        return tree

    def join_leaf(leaf: Any) -> np.ndarray:
        shares = _all(np.asarray(leaf))
        joined = np.zeros((count, *shares.shape[2:]), shares.dtype)
        for process, share in enumerate(shares):
            start = _share_start(process, len(share), count)
            joined[start : start + len(share)] = share
        return joined

    return jax.tree.map(join_leaf, tree)


def _process_count() -> int:
    return jax.process_count() if _joined else 1


def _process_index() -> int:
    return jax.process_index() if _joined else 0


def everywhere() -> NamedSharding:
    """Return the sharding of an array that every device holds whole."""
    return NamedSharding(Mesh(np.asarray(devices()), ("all",)), P())


def spread(tree: Any, places: Any = None) -> Any:
    """Put arrays that every process has on the devices of all.

    Args:
        tree: arrays, the same in every process.
        places: a tree of shardings; None: every device holds them whole.
    """
    if not _joined:
        # NumPy's are copied, for the loop donates a state's buffers, which JAX then overwrites.
        own = jax.tree.map(lambda leaf: not isinstance(leaf, np.ndarray), tree)
        return jax.device_put(tree, places, may_alias=own)
    shardings = jax.tree.map(lambda _: everywhere(), tree) if places is None else places
    return jax.tree.map(_spread_leaf, tree, shardings)


def _spread_leaf(leaf: Any, sharding: Sharding) -> jax.Array:
    if is_key(leaf):
        data = _spread_leaf(jax.random.key_data(leaf), everywhere())
        wrap = functools.partial(wrap_key, like=leaf)
        key: jax.Array = jax.jit(wrap, out_shardings=sharding)(data)
        return key
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def parted(tree: Any) -> bool:
    """Return whether other processes have parts of an array that this one has not."""
    return _joined and not all(
        leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in jax.tree.leaves(tree)
    )


def on_host(leaf: Any) -> np.ndarray:
    """Return an array as NumPy's, gathered from all processes where each has a part of it.

    All processes must call it for the same arrays in the same order.
    """
    if parted(leaf):
        from jax.experimental.multihost_utils import process_allgather

        return np.asarray(process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def text_of_first(text: str) -> str:
    """Return the first process's text, of at most 4,096 bytes."""
    if not _joined:
        return text
    encoded = text.encode()[:4096].ljust(4096, b"\0")
    texts = _all(np.frombuffer(encoded, np.uint8))
    return bytes(texts[0]).rstrip(b"\0").decode()


def first_then_all(function: Callable[[bool], Result]) -> Result:
    """Return function(whether this is the first process), which the others call after the first."""
    if is_first():
        result = function(True)
        meet()
    else:
        meet()
        result = function(False)
    return result


def _all(values: np.ndarray) -> np.ndarray:
    """Return the values of all processes, of which each has as many: [processes, ...]."""
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(values)).reshape(jax.process_count(), *values.shape)


def any_signal(signum: int | None) -> int | None:
    """Return a signal that one of the processes has received, or None; all return the same."""
    if not _joined:
        return signum
    received = _all(np.array([signum or 0], np.int32))
    return int(received.max()) or None


def check_same(settings: str) -> None:
    """Check that all processes have the same settings, or whatever else is given as text.

    Raises:
        UserError: some differ from the first one's.
    """
    if not _joined:
        return
    digest = np.frombuffer(hashlib.sha256(settings.encode()).digest(), np.uint32)
    digests = _all(digest.copy())
    others = np.flatnonzero((digests != digests[0]).any(1)).tolist()
    if others:
        raise UserError(
            f"Processes {', '.join(map(str, others))} have other settings than process 0, another "
            "checkpoint, or another version of this package or of JAX: start all with the same "
            "command, on the same files."
        )


@contextlib.contextmanager
def noticing_losses(remedy: str) -> Iterator[None]:
    """Raise ProcessLost where the block fails because another process cannot be reached.

    remedy: the end of its sentence.
    """
    global _remedy
    _remedy = remedy
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        if not _joined or isinstance(error, UserError) or not LOST.search(str(error)):
            raise
        raise ProcessLost(_lost()) from error


def _lost() -> str:
    return f"Another process of this training has ended or cannot be reached; {_remedy}"


def _watch() -> None:
    """End this process with exit code 1 where another one is lost and this one does not notice.

    It may wait for the other's part of a computation, from which nothing in Python calls it back.
    """
    from jax.experimental.multihost_utils import live_devices

    everyone = jax.devices()
    while not _left.wait(WATCH_SECONDS):
        try:
            with live_devices(everyone) as alive:
                lost = len(alive) < len(everyone)
        except Exception:  # of many types, where the coordinator cannot be reached
            lost = True
        if lost and not _left.wait(GRACE_SECONDS):
            os.write(2, f"error: {_lost()}\n".encode())
            os._exit(1)


def _delay_aborts() -> None:
    """Let a thread that aborts this process sleep for six seconds first.

    JAX's runtime aborts at once where the first process is gone. In that time the computation fails
    with its own error, or `_watch` finds the loss, and either ends the process with a sentence. A
    handler in Python would not do: it would run after the abort. The handler here is the system's
    `sleep`, which is given the signal's number, 6, for the seconds.
    """
    if os.name == "posix":
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _not_found(reason: str) -> str:
    return (
        f"The processes of this training did not find each other ({reason}): start all of them "
        f"with the same command within {CONNECT_SECONDS} s, each with a number of its own."
    )


@contextlib.contextmanager
def _giving_up() -> Iterator[None]:
    """End this process with exit code 2 where the block, in JAX's runtime, takes too long.

    The runtime itself would abort, and nothing in Python can interrupt it.
    """
    errors = os.dup(2)

    def give_up() -> None:
        os.write(errors, f"error: {_not_found('some did not come')}\n".encode())
        os._exit(2)

    timer = threading.Timer(CONNECT_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        os.close(errors)


def _discard_output(*streams: int) -> None:
    """Discard from now on what is written to file descriptors, such as 1, the standard output."""
    sys.stdout.flush()
    sys.stderr.flush()
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(sink, stream)
    os.close(sink)


@contextlib.contextmanager
def _silent_output() -> Iterator[None]:
    """Discard what the block writes to standard output and standard error, C++ included."""
    kept = [os.dup(1), os.dup(2)]
    _discard_output(1, 2)
    try:
        yield
    finally:
        for stream, descriptor in ((1, kept[0]), (2, kept[1])):
            os.dup2(descriptor, stream)
            os.close(descriptor)
