"""`tsar-jax status`: how far a run is."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tsar_jax.errors import (
    MAX_MESSAGE,
    UserError,
    bare,
    escaped,
    quoted,
)
from tsar_jax.training import run as run_folder
from tsar_jax.training.config import (
    flatten_config,
)

MAX_LINES = 200
"""Settings that `tsar-jax status` shows."""


def status(path: Path) -> str:
    """How far a run is, from whatever its folder holds. Raises UserError if it holds no run."""
    from tsar_jax.training.metrics import read_last_rows

    if not path.is_dir():
        raise UserError(f"There is no run folder {path}: check the path.")
    if not any(os.path.lexists(path / name) for name in RUN_PARTS):
        raise UserError(f"{path} is not a run folder, for it has no config.json: check the path.")
    trouble = []
    try:
        stored = run_folder.read_description(path)
    except UserError as error:
        stored, trouble = {}, [f"config       {error}"]
    try:
        rows = read_last_rows(path)
    except UserError as error:
        rows, trouble = [], [*trouble, f"metrics      {error}"]
    checkpoints = path / "checkpoints"
    steps = run_folder.checkpoint_steps(checkpoints)
    trouble += [
        f"checkpoints  {odd.name[:80]!r} is no step, and is moved when the run is resumed"
        for odd in run_folder.odd_steps(checkpoints)[:3]
    ]
    if os.path.lexists(checkpoints) and not checkpoints.is_dir():
        trouble.append(f"checkpoints  {checkpoints} is no folder: move it away")
    step = max([row["step"] for row in rows] + steps, default=0)
    total = stored.get("steps")
    done = bool(steps) and steps[-1] == total
    experiment = stored.get("experiment") or "unknown"
    lines = [
        f"run          {path}",
        f"experiment   {bare(experiment)}, preset {bare(stored.get('preset'))}",
        f"step         {step} of {bare(total) if total is not None else 'unknown'}",
        f"finished     {'yes' if done else f'no; continue with --resume {quoted(path)}'}",
        f"checkpoints  {', '.join(map(str, steps[-20:])) or 'none'}",
        *_last_lines(rows),
        *trouble,
    ]
    settings = list(flatten_config(stored.get("config", {})).items())
    lines += ["config"] if stored else []
    lines += [f"  {bare(name)} = {json.dumps(value)}" for name, value in settings[:MAX_LINES]]
    lines += [f"  and {len(settings) - MAX_LINES} more"] if len(settings) > MAX_LINES else []
    return "\n".join(escaped(line, MAX_MESSAGE) for line in lines)


RUN_PARTS = ("config.json", "metrics.jsonl", "checkpoints")


def _last_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    from tsar_jax.training.metrics import LEADING_COLUMNS

    lines = []
    for split in ("train", "eval"):
        last = next((row for row in reversed(rows) if row["split"] == split), None)
        if last is not None:
            names = [name for name in last if name not in LEADING_COLUMNS]
            text = "  ".join(f"{bare(name)} {last[name]}" for name in names)
            lines.append(f"last {split:5}   step {last['step']}  {text}")
    return lines
