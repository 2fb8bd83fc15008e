"""Progress bars, on the error stream: what a command prints stays clean."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Item = TypeVar("Item")


def progress_bar() -> Progress:
    """A bar that vanishes when done."""
    return Progress(console=Console(stderr=True), transient=True)


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """The items, with a bar that shows how many of them went by."""
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)
