"""Signals: Ctrl-C, SIGTERM, SIGHUP and SIGQUIT stop the loop, a second Ctrl-C the process."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from tsar_jax import processes
from tsar_jax.output import outlasting, say

SHOW_CURSOR = "\x1b[?25h"
STOPPING = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
]
"""Signals that stop a training as Ctrl-C does; Windows has only the first."""


@contextlib.contextmanager
def caught_signals() -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the signal received, SIGINT or one of `STOPPING`, or None.

    A signal that the process was told to ignore stays ignored, as SIGHUP is under nohup.

    Python runs its handlers only between its own instructions, so not during a compiled chunk
    of minutes. The kernel's part of the handler does write the signal's number to a socket at
    once, and a thread reads it there: hence a second Ctrl-C stops even within a chunk.
    Outside the main thread, where signals cannot be handled, nothing is caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received: list[int] = []
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handlers = {
        signum: signal.signal(signum, lambda signum, _: received.append(signum))
        for signum in (signal.SIGINT, *STOPPING)
        if signum == signal.SIGINT or signal.getsignal(signum) != signal.SIG_IGN
    }
    watcher = threading.Thread(target=_watch, args=(reader, set(handlers)), daemon=True)
    watcher.start()
    try:
        yield lambda: received[0] if received else None
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(wakeup)
        writer.close()
        watcher.join()
        reader.close()


def _watch(reader: socket.socket, caught: set[int]) -> None:
    stopping = False
    while signals := reader.recv(1):
        signum = signals[0]
        if signum not in caught:
            continue
        if stopping and signum == signal.SIGINT:
            # Nothing may delay this exit: neither a compiled chunk nor a save in progress.
            say(SHOW_CURSOR * outlasting(sys.stderr).isatty() + "\nstopped at once")
            os._exit(128 + signum)
        if not stopping and processes.is_first():
            say("\nfinishing the present chunk; press Ctrl-C to stop at once")
        stopping = True
