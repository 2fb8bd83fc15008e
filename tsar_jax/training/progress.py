"""Display of a run's progress: one live line on a terminal, plain lines in a log."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from tsar_jax.output import outlasting, say

PLAIN_INTERVAL_S = 10.0
"""Seconds between two lines in a log, so that a long run does not fill it."""

SHOWN = {"loss": "loss", "fitness_mean": "fitness", "fitness_best": "best"}
"""Labels of the metrics that a line shows, by metric."""


class Progress(Protocol):
    """A display. update: called at every chunk. message: prints a line. close: called last."""

    def update(self, step: int, steps_per_s: float, metrics: Mapping[str, float]) -> None: ...

    def message(self, text: str) -> None: ...

    def close(self) -> None: ...


def say_compiling(program: str = "") -> None:
    """Print on stderr that a program is being compiled, which may take minutes.

    program: its name, where several are compiled.
    """
    say(f"{program}: compiling ..." if program else "compiling ...")


def make_progress(total: int, stream: Any = None) -> Progress:
    """Return a live line if `stream` (by default stderr) is a terminal, else plain lines.

    A stream that fails or is closed stops no training: its lines are dropped.
    """
    stream = outlasting(sys.stderr if stream is None else stream)
    return LiveProgress(total, stream) if stream.isatty() else PlainProgress(total, stream)


def describe(step: int, total: int, steps_per_s: float, metrics: Mapping[str, float]) -> str:
    """Return "step 120/1000  35.2 steps/s  0:00:25 left  loss 0.1234  accuracy 0.910"."""
    parts = [f"step {step}/{total}"]
    if steps_per_s > 0:
        seconds = round((total - step) / steps_per_s)
        remaining = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        parts += [f"{steps_per_s:.3g} steps/s", f"{remaining} left"]
    accuracies = [name for name in metrics if "accuracy" in name]
    parts += [f"{label} {metrics[name]:.4g}" for name, label in SHOWN.items() if name in metrics]
    parts += [f"{name} {metrics[name]:.3f}" for name in accuracies[:1]]
    return "  ".join(parts)


class PlainProgress:
    """Plain lines for a log: the first update, the last, and one per `PLAIN_INTERVAL_S` between."""

    def __init__(self, total: int, stream: Any):
        self._total, self._stream = total, stream
        self._last = -math.inf
        self._pending = ""

    def update(self, step: int, steps_per_s: float, metrics: Mapping[str, float]) -> None:
        self._pending = describe(step, self._total, steps_per_s, metrics)
        if time.monotonic() - self._last >= PLAIN_INTERVAL_S:
            self._flush()

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._pending:
            print(self._pending, file=self._stream, flush=True)
            self._last, self._pending = time.monotonic(), ""


class LiveProgress:
    """A bar and a line on a terminal that change in place."""

    def __init__(self, total: int, stream: Any):
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._total = total
        self._bar: Any = Bar(
            BarColumn(bar_width=20),
            TextColumn("{task.description}", markup=False),
            console=Console(file=stream),
        )
        self._task = self._bar.add_task("compiling", total=total)
        self._bar.start()

    def update(self, step: int, steps_per_s: float, metrics: Mapping[str, float]) -> None:
        text = describe(step, self._total, steps_per_s, metrics)
        self._bar.update(self._task, completed=step, description=text)

    def message(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._bar.stop()
