"""Paths that archives give their members: made plain, found harmless, and told from litter."""

import re

LITTER = frozenset(
    (
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
        "system volume information",
    )
)
"""What systems put beside a user's files, in small letters."""


def is_unsafe(name: str) -> bool:
    """Whether a member's path is absolute or climbs out of the folder it is unpacked in."""
    path = name.replace("\\", "/")
    return path.startswith("/") or ".." in path.split("/") or bool(re.match(r"[A-Za-z]:", path))


def plain_name(name: str) -> str:
    """Return a path with single slashes between its parts, as "a/b" of "./a/b" and of "a\\\\b"."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def is_litter(name: str) -> bool:
    """Whether a plain path is of what systems add: hidden files, __MACOSX, Thumbs.db and such."""
    parts = name.split("/")
    return any(part.startswith(".") or part.lower() in LITTER for part in parts)
