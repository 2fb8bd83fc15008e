"""A finished run to be damaged, and a compilation cache.

The tests of this folder compile the same small programs many times.
"""

import shutil

import jax
import jax.experimental.compilation_cache.compilation_cache as cache
import pytest
from toy_training import train_toy


@pytest.fixture(scope="module", autouse=True)
def compilation_cache(tmp_path_factory):
    wanted = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    cache.reset_cache()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    """A run's folder and how it ended, of the toy that the test file's CONFIG describes."""
    path = tmp_path_factory.mktemp("finished") / "run"
    return path, train_toy(path, request.module.CONFIG)


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(finished[0], tmp_path / "run")
