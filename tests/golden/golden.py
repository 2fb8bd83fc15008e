"""What the checks against the golden arrays share: files, precision and closeness."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

FOLDER = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parent))
TOLERANCE = {"float64": 2e-5, "float32": 2e-3}

# These programs take far longer to compile than to run. At the backend's level 0 they compile
# twice as fast again, but round so that in float32 an inner loop can take another turn where two
# cells of a max pool are nearly equal.
QUICK = {"xla_llvm_disable_expensive_passes": True}


def files(*prefixes: str) -> list[Path]:
    """The golden files whose names begin with one of the prefixes."""
    return sorted(path for prefix in prefixes for path in FOLDER.glob(f"{prefix}*.npz"))


def load(path: Path, precision: str) -> dict:
    """A file's arrays, the floating-point ones at a precision."""

    def cast(array):
        return array.astype(precision) if array.dtype.kind == "f" else array

    with np.load(path, allow_pickle=False) as archive:
        return {name: cast(archive[name]) for name in archive.files}


def series(golden: dict, prefix: str) -> dict[int, np.ndarray]:
    """The arrays called prefix00, prefix01, ..., by number."""
    names = [name for name in golden if name.startswith(prefix) and name[len(prefix) :].isdigit()]
    return {int(name[len(prefix) :]): golden[name] for name in names}


def close(ours, golden, precision: str, scale: float | None = None) -> None:
    """Assert that no entry is off by more than the tolerance times the array's scale."""
    assert np.shape(ours) == np.shape(golden)
    scale = max(1.0, float(np.abs(golden).max())) if scale is None else scale
    error = np.abs(np.asarray(ours) - np.asarray(golden)).max()
    assert error <= TOLERANCE[precision] * scale, f"off by {error:.2e} at scale {scale:.2e}"


def channels_last(images: np.ndarray) -> jax.Array:
    """Images [N, C, H, W] -> [N, H, W, C]."""
    return jnp.asarray(images.transpose(0, 2, 3, 1))
