"""Where the command line runs: file names and output of any locale, terminals of any width."""

import os
import shutil
import sys
from typing import Any

NARROWEST = 40
"""Columns that help, tables and errors are laid out for at least."""


def use_utf8() -> None:
    """Begin this process again in Python's UTF-8 mode where file names have another encoding.

    Under the locale C, for instance, names that are not ASCII are kept as bytes, which libraries
    written in C++ (Orbax writes through one) do not take. It keeps its process number.
    """
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8") or not sys.executable:
        return
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def prepare_terminal() -> None:
    """Let nothing that is printed fail or hang for the terminal's encoding or its width."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict":
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)


def print_tables(*tables: Any, width: int | None = None) -> None:
    """Print rich tables, what stands in their cells as it is.

    Names are the user's own, and "[bold]" or ":smile:" in one is neither markup nor an emoji.

    Args:
        width: columns; None: the terminal's.
    """
    from rich.console import Console  # here, for most commands print none

    Console(width=width, markup=False, emoji=False, highlight=False).print(*tables)
