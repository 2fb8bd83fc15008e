"""Compiled programs kept between processes, in the user's cache folder.

`TSAR_JAX_CACHE` turns it off (`off`) or names another folder; who has set JAX's own
`JAX_COMPILATION_CACHE_DIR` keeps that. A program that is read back is the very one that was
compiled, so results do not depend on it.
"""

import contextlib
import hashlib
import os
import platform
import sys
import tempfile
from pathlib import Path

VARIABLE = "TSAR_JAX_CACHE"
OFF = ("off", "0", "no", "false")
MOST_BYTES = 2**30
"""Size of the folder above which programs are deleted at the next start, the least used first."""

SETTINGS = {
    # Of a short training most of the time goes into many small programs.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}


def keep_compiled_programs() -> None:
    """Let JAX keep compiled programs in the user's cache folder, unless told otherwise.

    Without a folder that is this user's alone, they are compiled anew in every process.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = cache_folder()
    if folder is None:
        return
    settings = {"jax_compilation_cache_dir": str(folder), **SETTINGS}
    if "jax" not in sys.modules:
        for name, value in settings.items():
            os.environ.setdefault(name.upper(), str(value))
        return
    import jax

    if jax.config.values.get("jax_compilation_cache_dir") is None:
        for name, value in settings.items():
            jax.config.update(name, value)


def cache_folder() -> Path | None:
    """Make the folder of this processor's programs and bound its size; None: there is none.

    Whoever can write there can have code run, so it must be this user's and no one else's.
    """
    wanted = os.environ.get(VARIABLE, "").strip()
    if wanted.lower() in OFF:
        return None
    folder = Path(wanted or os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        folder = folder.expanduser().absolute()
        if not wanted:
            folder = folder / "tsar_jax" / "jax"
        folder = folder / processor()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder):
            return None
        with tempfile.TemporaryFile(dir=folder):
            pass
        shrink(folder, MOST_BYTES)
    except (OSError, RuntimeError, ValueError):  # no home, no place, no right to write
        return None
    return folder


def processor() -> str:
    """Return a name of this machine's instruction set: programs of another may crash here."""
    features = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kinds = ("model name", "flags", "Features", "CPU part")
        features = "\n".join(sorted({line for line in lines if line.startswith(kinds)}))
    described = f"{platform.machine()}\n{platform.processor()}\n{features}"
    return f"{platform.machine()}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"


def _is_private(folder: Path) -> bool:
    if not hasattr(os, "getuid"):  # Windows keeps a user's folders from others
        return True
    found = folder.stat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def shrink(folder: Path, most: int) -> None:
    """Delete the least recently used files of a folder while all are larger than `most` bytes.

    JAX could bound the folder itself, but only with a package more and a lock at every program.
    """
    found = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process has just deleted it
            if entry.is_file(follow_symlinks=False):
                stat = entry.stat()
                found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, entry.path))
    size = sum(bytes_ for _, bytes_, _ in found)
    for _, bytes_, path in sorted(found):
        if size <= most:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        size -= bytes_


def silence_compiler() -> None:
    """Keep XLA's alarms of slow compilation and its remarks on processors from the terminal.

    They are of the compiler's level of errors, though nothing is wrong; what is wrong raises. Who
    sets TF_CPP_MIN_LOG_LEVEL sees them.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if "jax" in sys.modules:  # which has read it already
        with contextlib.suppress(ImportError, AttributeError):
            from jaxlib import utils

            utils.absl_set_min_log_level(3)
