"""Which of XLA's emitters compile the tests' programs."""

import os
from pathlib import Path

import jax

# jax 0.10 has two kinds of emitters for the CPU. The older ones compile in half the time,
# and leave other programs: some faster, some twice as slow. Other versions have one kind only.
TWO_KINDS = jax.__version_info__[:2] == (0, 10)

# Options that compile a program as a user's jax does.
AS_USERS_DO: dict[str, bool] = {"xla_cpu_use_fusion_emitters": True} if TWO_KINDS else {}


def compile_with_older_emitters() -> None:
    """Choose the older emitters in this process and those that it starts, if it has a choice.

    Takes effect only before the first program is compiled.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if TWO_KINDS and "xla_cpu_use_fusion_emitters" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".lstrip()


def compiled_quickly(folder: Path) -> dict[str, str]:
    """Return variables of processes whose numbers are compared with those of each other alone.

    They compile without optimisation, and keep what they compile in a folder for each other.
    """
    return {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
