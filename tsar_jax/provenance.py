"""By what, where and when something was made: what every run's config.json keeps beside it."""

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
"""What git sets for its hooks, whose programs it then takes to the hook's own repository."""
DESCRIBE = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def version() -> str:
    """Return the package's version, "unknown" in a clone which is not installed."""
    try:
        return importlib.metadata.version("tsar_jax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def commit() -> str | None:
    """Return the commit of the clone that runs, "-dirty" where files differ; None elsewhere.

    Nothing is asked of a repository that merely has the package installed somewhere below it.
    """
    if not (ROOT / ".git").exists():
        return None
    surroundings = {n: value for n, value in os.environ.items() if n not in ANOTHER_REPOSITORY}
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *DESCRIBE],
            capture_output=True,
            text=True,
            timeout=10,
            env=surroundings,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None


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
    """Return what --version prints, without importing JAX."""
    try:
        jax = importlib.metadata.version("jax")
    except importlib.metadata.PackageNotFoundError:
        jax = "missing"
    of_clone = commit()
    source = f", commit {of_clone}" if of_clone else ""
    return f"tsar_jax {version()}{source} (JAX {jax}, Python {platform.python_version()})"
