"""Arrays in files: read back, and never half written."""

import numpy as np
import pytest

from tsar_jax.training import run


def test_arrays_are_read_back(tmp_path):
    arrays = {"counts": np.arange(6).reshape(2, 3), "mean": np.array(0.5)}
    run.write_arrays_atomically(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert sorted(file) == ["counts", "mean"]
        for name, values in arrays.items():
            np.testing.assert_array_equal(file[name], values)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    run.write_arrays_atomically(path, {"counts": np.arange(3)})
    before = path.read_bytes()

    def crash(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", crash)
    with pytest.raises(OSError, match="disk full"):
        run.write_arrays_atomically(path, {"counts": np.arange(4)})
    assert path.read_bytes() == before
