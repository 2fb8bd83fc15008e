"""Checks of the paths that archives give their members."""

import re

LITTER = frozenset(
    (
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
        "system volume information",
    )
)
"""Names of the files and folders that systems put beside a user's files, in lower case."""


def is_unsafe(name: str) -> bool:
    """Return whether a member's path is absolute or leads out of the folder of the archive."""
    path = name.replace("\\", "/")
    return path.startswith("/") or ".." in path.split("/") or bool(re.match(r"[A-Za-z]:", path))


def plain_name(name: str) -> str:
    """Return a path with single slashes between its parts: "a/b" for "./a/b" and for "a\\\\b"."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def is_litter(name: str) -> bool:
    """Return whether a plain path is of a file that systems add: hidden, __MACOSX, Thumbs.db ..."""
    parts = name.split("/")
    return any(part.startswith(".") or part.lower() in LITTER for part in parts)
