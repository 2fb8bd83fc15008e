"""A cache of compiled programs between processes, in the user's cache folder.

`TSAR_JAX_CACHE` turns it off (`off`) or names another folder; where JAX's own
`JAX_COMPILATION_CACHE_DIR` is set, that is used. A program that is read back is the very one that
was compiled, so results do not depend on the cache.
"""

import contextlib
import hashlib
import os
import platform
import stat
import sys
import tempfile
from pathlib import Path

VARIABLE = "TSAR_JAX_CACHE"
OFF = ("off", "0", "no", "false")
MAX_BYTES = 2**30
"""Size of the folder above which the next process deletes programs, the least recently used first.
"""

FATAL = 3
"""Level of XLA's log at which only fatal errors are printed."""

SETTINGS = {
    # Small programs are cached as well: a short training spends most of its time compiling many.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}


def keep_compiled_programs() -> None:
    """Let JAX keep compiled programs in the user's cache folder, unless variables say otherwise.

    Without a folder that only this user can write, every process compiles them anew.
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
    """Make the folder of this processor's programs, bound its size and return it.

    None where the cache is off or there is no folder that only this user can write: others could
    put code there that is run.
    """
    setting = os.environ.get(VARIABLE, "").strip()
    if setting.lower() in OFF:
        return None
    folder = Path(setting or os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        folder = folder.expanduser().absolute()
        if not setting:
            folder = folder / "tsar_jax" / "jax"
        folder = folder / processor()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder):
            return None
        with tempfile.TemporaryFile(dir=folder):
            pass
        shrink(folder, MAX_BYTES)
    except (OSError, RuntimeError, ValueError):  # no home folder, a full disk, no permission
        return None
    return folder


def processor() -> str:
    """Return a name for this machine's instruction set, for programs of another may crash here."""
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
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def shrink(folder: Path, max_bytes: int) -> None:
    """Delete the least recently used files of a folder until it holds at most `max_bytes` bytes.

    JAX could bound the folder itself, but needs another package and a lock for every program.
    """
    files = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process has just deleted it
            if entry.is_file(follow_symlinks=False):
                status = entry.stat()
                last_use = max(status.st_atime, status.st_mtime)
                files.append((last_use, status.st_size, entry.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= max_bytes:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size


def silence_compiler() -> None:
    """Keep XLA's messages on slow compilation and on processors off the terminal.

    XLA logs them as errors, though nothing is wrong; real errors raise. Where TF_CPP_MIN_LOG_LEVEL
    is set, it decides.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = str(FATAL)
    if "jax" in sys.modules:  # which has read the variable already
        with contextlib.suppress(ImportError, AttributeError):
            from jaxlib import utils

            utils.absl_set_min_log_level(FATAL)
