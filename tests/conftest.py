"""What tests of several layers share."""

import ctypes
import gc
import os
import sys

import hypothesis
import jax
import pytest
from compilers import compile_with_older_emitters
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from tsar_jax.precision import choose_full_precision

# What a user has set or prepared changes no test, nor does a test change what is there.
os.environ["TSAR_JAX_CACHE"] = "off"
os.environ["TFDS_DATA_DIR"] = f"{os.devnull}/no_data"
for name in ("COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(name, None)

compile_with_older_emitters()
# As the command line does: golden numbers are compared in full precision on accelerators too.
choose_full_precision()

# The same examples every time, however slow or busy the machine.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_freed():
    """Programs of one file do not outlive it: they would pile up to gigabytes in a worker."""
    yield
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        # What XLA compiled with is free but scattered, and stays with the process otherwise.
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="module")
def quickly_compiled(tmp_path_factory):
    """Programs that run for milliseconds, compiled without optimisation, and each once.

    Two trainings of one config would compile the same step twice without a cache.
    """
    settings = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()
