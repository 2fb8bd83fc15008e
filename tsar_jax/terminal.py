"""Preparation for any locale and terminal: UTF-8, characters that cannot be shown, widths."""

import os
import shutil
import sys
from typing import Any

NARROWEST = 40
"""Smallest width in columns for which help, tables and errors are laid out."""


def use_utf8() -> None:
    """Restart this process in Python's UTF-8 mode where file names have another encoding.

    Under the locale C, for instance, names that are not ASCII are kept as bytes, which libraries
    written in C++ (Orbax writes through one) do not take. The process keeps its number.
    """
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8") or not sys.executable:
        return
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def prepare_terminal() -> None:
    """Prevent output from failing or hanging because of the terminal's encoding or width."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict":
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)


def print_tables(*tables: Any, width: int | None = None) -> None:
    """Print rich tables with the text of their cells unchanged.

    Cells hold the user's own names, in which "[bold]" or ":smile:" is neither markup nor an emoji.

    Args:
        tables: rich's tables.
        width: width in columns; None: the terminal's.
    """
    from rich.console import Console  # here, for most commands print none

    Console(width=width, markup=False, emoji=False, highlight=False).print(*tables)
