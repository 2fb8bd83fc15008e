"""Programs kept between processes: where, how many, and to the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tsar_jax import compile_cache

ROOT = Path(compile_cache.__file__).parent.parent
PROGRAM = """
from tsar_jax import cli
def main():
    import jax
    print(jax.config.jax_compilation_cache_dir)
    print(jax.jit(lambda x: (jax.numpy.sin(x) @ x.T).sum(0))(jax.random.normal(
        jax.random.key(0), (40, 30))).tobytes().hex())
cli.run_main(main)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache folder, with nothing that says otherwise."""
    for name in (compile_cache.VARIABLE, "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tsar_jax" / "jax"


def run(**environment):
    """The folder that a process keeps its programs in, and the bits that it computes."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    folder, bits = done.stdout.split()
    return folder, bits


def test_bits_are_equal_without_the_cache_and_from_it(cache):
    folder, bits = run(TSAR_JAX_CACHE="off")
    assert (folder, cache.exists()) == ("None", False)
    folder, first = run()
    assert Path(folder).parent == cache
    kept = {path.name for path in Path(folder).iterdir()}
    assert kept
    assert (first, run()) == (bits, (folder, bits))
    assert {path.name for path in Path(folder).iterdir()} == kept
    for path in Path(folder).iterdir():
        path.write_bytes(b"damaged")
    assert run() == (folder, bits)


def test_a_cache_of_the_users_own_is_kept(cache, tmp_path):
    assert run(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))[0] == str(tmp_path / "mine")
    assert Path(run(TSAR_JAX_CACHE=str(tmp_path / "other"))[0]).parent == tmp_path / "other"
    assert not cache.exists()


@pytest.mark.parametrize("case", ["file", "homeless", "shared"])
def test_without_a_folder_of_ones_own_nothing_is_kept(cache, monkeypatch, tmp_path, case):
    if case == "file":
        (tmp_path / "tsar_jax").write_text("")
    elif case == "homeless":
        monkeypatch.setenv("XDG_CACHE_HOME", "~nobody_of_this_name/.cache")
    else:
        (cache / compile_cache.processor()).mkdir(parents=True)
        (cache / compile_cache.processor()).chmod(0o777)
    assert compile_cache.cache_folder() is None


def test_the_least_used_go_first(tmp_path):
    for age, name in enumerate(["new", "old", "oldest"]):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    compile_cache.shrink(tmp_path, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    compile_cache.shrink(tmp_path, 20)
    assert len(list(tmp_path.iterdir())) == 2
