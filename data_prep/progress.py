"""Progress bars on the error stream, so that the standard output holds only results."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Item = TypeVar("Item")


def progress_bar() -> Progress:
    """Return a bar that vanishes when done."""
    return Progress(console=Console(stderr=True), transient=True)


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield the items, with a bar that shows how many have been yielded."""
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)
