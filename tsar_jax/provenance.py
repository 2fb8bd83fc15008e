"""Provenance for every run's config.json: versions, commit, device, command and date."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ANOTHER_REPOSITORY = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR"),
    *("GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"),
)
"""Variables that git sets for its hooks, which make git ask the hook's repository about itself."""
DESCRIBE = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
"""Git's command for the full hash of the commit, without tags; "-dirty" where files differ."""
GIT_TIMEOUT_S = 10
"""Seconds after which git is given up, as on a file system that hangs."""


def version() -> str:
    """Return the package's version, "unknown" in a clone that is not installed."""
    try:
        return importlib.metadata.version("tsar_jax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def commit() -> str | None:
    """Return the commit of the clone that runs, "-dirty" where files differ; None without a clone.

    A repository that merely has the package installed somewhere below it does not count.
    """
    if not (ROOT / ".git").exists():
        return None
    environment = {
        name: value for name, value in os.environ.items() if name not in ANOTHER_REPOSITORY
    }
    try:
        completed = subprocess.run(
            ["git", "-C", str(ROOT), *DESCRIBE],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            env=environment,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return completed.stdout.strip() or None


def provenance() -> dict[str, Any]:
    """Return versions, commit, device, command and date, as JSON values.

    The keys: tsar_jax, jax, python: versions. commit: see `commit`. device: kind and number of
    JAX's devices. command: as it was run, pretrained:NAME being a folder. date: UTC, ISO 8601.
    """
    import jax  # the command line imports this module, and must start quickly

    devices = jax.local_devices()
    return {
        "tsar_jax": version(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "device": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "command": " ".join([sys.argv[0], *map(shlex.quote, sys.argv[1:])]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def version_text() -> str:
    """Return the text of --version, without importing JAX."""
    try:
        jax = importlib.metadata.version("jax")
    except importlib.metadata.PackageNotFoundError:
        jax = "missing"
    clone_commit = commit()
    source = f", commit {clone_commit}" if clone_commit else ""
    return f"tsar_jax {version()}{source} (JAX {jax}, Python {platform.python_version()})"
