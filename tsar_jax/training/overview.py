"""A table of runs, with the state, step and result of each."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tsar_jax.errors import UserError, bare, escaped
from tsar_jax.training import run as run_folder
from tsar_jax.untrusted.files import read_json

HEAD = ("run", "experiment", "preset", "state", "step", "result")
DEPTH = 4
"""Depth of folders in which runs are looked for; those of a table of results are in OUT/runs."""


def runs_text(folder: Path) -> str:
    """Return a table of the runs in a folder and below it.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {folder}: name the one that holds runs, tsar-jax runs FOLDER."
        )
    rows = [describe_run(path) for path in find_runs(folder, DEPTH)]
    if not rows:
        return f"There are no runs in {folder}."
    lines = [HEAD, *([escaped(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def find_runs(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the run folders in a folder, itself included, at most `depth` below it."""
    if (folder / "config.json").exists():
        yield folder
        return
    try:
        below = sorted(
            entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)
        )
    except OSError:
        return
    for name in below if depth else []:
        yield from find_runs(folder / name, depth - 1)


def describe_run(path: Path) -> list[str]:
    """Return a run's cells of the table, in the order of `HEAD`; its folder may be damaged."""
    from tsar_jax.training.metrics import read_last_rows

    try:
        stored = run_folder.read_description(path)
        rows = read_last_rows(path)
        saved = run_folder.checkpoint_steps(path / "checkpoints")
    except (UserError, OSError):
        return [str(path), "", "", "damaged", "", ""]
    total = stored.get("steps")
    step = max([row["step"] for row in rows] + saved, default=0)
    state = "finished" if saved and saved[-1] == total else "stopped"
    if is_locked(path):
        state = "running"
    names = (bare(stored.get("experiment") or "unknown"), bare(stored.get("preset") or ""))
    reached = result(rows) or pretrained_result(path)
    return [str(path), *names, state, f"{step}/{bare(total)}", reached]


def pretrained_result(path: Path) -> str:
    """Return the result that the pretrained.json of a run states, or "" for a run without one."""
    try:
        description = read_json(path / run_folder.PRETRAINED, run_folder.MAX_CONFIG)
    except (OSError, ValueError):
        return ""
    text = description.get("result") if isinstance(description, dict) else None
    return bare(text) if isinstance(text, str) else ""


def result(rows: list[dict[str, Any]]) -> str:
    """Return two metrics of the last evaluation, or of the last chunk where there is none."""
    from tsar_jax.training.metrics import LEADING_COLUMNS

    for split in ("eval", "train"):
        last: dict[str, Any] = next(
            (row for row in reversed(rows) if row.get("split") == split), {}
        )
        values = {
            name: value
            for name, value in last.items()
            if name not in LEADING_COLUMNS and isinstance(value, int | float)
        }
        names = sorted(values, key=lambda name: "accuracy" not in name)[:2]
        if names:
            return "  ".join(f"{bare(name)} {values[name]:.4g}" for name in names)
    return ""


def is_locked(path: Path) -> bool:
    """Return whether a process trains in the run folder; False where there are no locks."""
    try:
        import fcntl

        descriptor = os.open(path / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
