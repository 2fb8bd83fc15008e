"""The command `tsar-jax status`, which shows a run's progress and settings."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tsar_jax.errors import MAX_MESSAGE, UserError, bare, escaped, quoted
from tsar_jax.training import run as run_folder
from tsar_jax.training.config import flatten_config

MAX_LINES = 200
"""Largest number of settings that are shown; a config.json from elsewhere may have more."""
MAX_STEPS = 20
"""Largest number of checkpoints that are shown, the newest; a run may keep any number."""
RUN_PARTS = ("config.json", "metrics.jsonl", "checkpoints")
"""Entries of a folder by which it is taken for a run, though perhaps a damaged one."""


def status(path: Path) -> str:
    """Return a run's progress and settings as text; its folder may be damaged.

    Raises:
        UserError: the folder holds no run.
    """
    from tsar_jax.training.metrics import read_last_rows

    if not path.is_dir():
        raise UserError(f"There is no run folder {path}: check the path.")
    if not any(os.path.lexists(path / name) for name in RUN_PARTS):
        raise UserError(f"{path} is not a run folder, for it has no config.json: check the path.")
    damage = []
    try:
        stored = run_folder.read_description(path)
    except UserError as error:
        stored, damage = {}, [f"config       {error}"]
    try:
        rows = read_last_rows(path)
    except UserError as error:
        rows, damage = [], [*damage, f"metrics      {error}"]
    checkpoints = path / "checkpoints"
    steps = run_folder.checkpoint_steps(checkpoints)
    step = max([row["step"] for row in rows] + steps, default=0)
    total = stored.get("steps")
    finished = bool(steps) and steps[-1] == total
    experiment = stored.get("experiment") or "unknown"
    lines = [
        f"run          {path}",
        f"experiment   {bare(experiment)}, preset {bare(stored.get('preset'))}",
        f"step         {step} of {bare(total) if total is not None else 'unknown'}",
        f"finished     {'yes' if finished else f'no; continue with --resume {quoted(path)}'}",
        f"checkpoints  {', '.join(map(str, steps[-MAX_STEPS:])) or 'none'}",
        *_last_lines(rows),
        *damage,
        *_checkpoint_damage(checkpoints),
    ]
    settings = list(flatten_config(stored.get("config", {})).items())
    lines += ["config"] if stored else []
    lines += [f"  {bare(name)} = {json.dumps(value)}" for name, value in settings[:MAX_LINES]]
    lines += [f"  and {len(settings) - MAX_LINES} more"] if len(settings) > MAX_LINES else []
    return "\n".join(escaped(line, MAX_MESSAGE) for line in lines)


def _checkpoint_damage(checkpoints: Path) -> list[str]:
    """Return a line for each of the first entries that are no steps, or for what is no folder."""
    if os.path.lexists(checkpoints) and not checkpoints.is_dir():
        return [f"checkpoints  {checkpoints} is no folder: move it away"]
    return [
        f"checkpoints  {odd.name[:80]!r} is no step, and is moved when the run is resumed"
        for odd in run_folder.odd_steps(checkpoints)[:3]
    ]


def _last_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line with the last row of each split."""
    from tsar_jax.training.metrics import LEADING_COLUMNS

    lines = []
    for split in ("train", "eval"):
        last = next((row for row in reversed(rows) if row["split"] == split), None)
        if last is not None:
            names = [name for name in last if name not in LEADING_COLUMNS]
            text = "  ".join(f"{bare(name)} {last[name]}" for name in names)
            lines.append(f"last {split:5}   step {last['step']}  {text}")
    return lines
