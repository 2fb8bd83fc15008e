"""Ctrl-C and SIGTERM: the first asks the loop to stop, a second Ctrl-C stops the process."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

SHOW_CURSOR = "\x1b[?25h"


@contextlib.contextmanager
def caught_signals() -> Iterator[Callable[[], int | None]]:
    """Yields a function that gives the signal received, SIGINT or SIGTERM, or None.

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
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handlers = {
        signum: signal.signal(signum, lambda signum, _: received.append(signum))
        for signum in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: received[0] if received else None
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(wakeup)
        writer.close()
        watcher.join()
        reader.close()


def _watch(reader: socket.socket) -> None:
    stopping = False
    while signals := reader.recv(1):
        signum = signals[0]
        if signum not in (signal.SIGINT, signal.SIGTERM):
            continue
        if stopping and signum == signal.SIGINT:
            # Nothing may delay this exit: neither a compiled chunk nor a save in progress.
            sys.stderr.write(SHOW_CURSOR * sys.stderr.isatty() + "\nstopped at once\n")
            sys.stderr.flush()
            os._exit(128 + signum)
        if not stopping:
            sys.stderr.write("\nfinishing the present chunk; press Ctrl-C to stop at once\n")
            sys.stderr.flush()
        stopping = True
