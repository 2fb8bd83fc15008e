"""What the checks against the golden arrays share: files, precision and closeness."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from compilers import AS_USERS_DO

FOLDER = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parent))
TOLERANCE = {"float64": 2e-5, "float32": 2e-3}

# These programs take far longer to compile than to run. At the backend's level 0 they compile
# twice as fast again, but round so that in float32 an inner loop can take another turn where two
# cells of a max pool are nearly equal.
QUICK = {**AS_USERS_DO, "xla_llvm_disable_expensive_passes": True}


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


def close(ours, golden, precision: str) -> None:
    """Assert that no entry is off by more than the tolerance times the array's scale."""
    assert np.shape(ours) == np.shape(golden)
    scale = max(1.0, float(np.abs(golden).max()))
    error = np.abs(np.asarray(ours) - np.asarray(golden)).max()
    assert error <= TOLERANCE[precision] * scale, f"off by {error:.2e} at scale {scale:.2e}"


def check(found: dict, path: Path, precision: str, results: Callable[[dict], dict]) -> None:
    """Assert that results, by the names of a file's arrays, are close to them.

    Where a ReLU's input is nearer to 0 than float32 can tell, or two cells of a max pool are nearer
    to each other, the gradient goes one of two ways, and which depends on the machine. So results
    in float32 may also be those of float64 from parameters that a few roundings have moved, if from
    the recorded parameters float64 finds what is recorded.
    results: (arrays of the file) -> what is found from them.
    """
    wrong = deviations(found, load(path, precision), precision)
    if precision == "float32" and wrong:
        ways = neighbouring_ways(path, results)
        assert any(not deviations(found, way, precision) for way in ways), wrong
    else:
        assert not wrong


def deviations(found: dict, golden: dict, precision: str) -> dict[str, float]:
    """By name, how far results are off, relative to their scale, where it is more than allowed."""
    assert {key: np.shape(ours) for key, ours in found.items()} == {
        key: np.shape(golden[key]) for key in found
    }
    off = {
        key: float(np.abs(ours - golden[key]).max() / scale_of(key, golden))
        for key, ours in found.items()
    }
    return {key: error for key, error in off.items() if not error <= TOLERANCE[precision]}


def scale_of(key: str, golden: dict) -> float:
    """Of an array's values; that of a gradient is that of the whole gradient's largest entry."""
    if key.startswith("grad_"):
        return max(float(np.abs(array).max()) for array in series(golden, "grad_").values())
    return max(1.0, float(np.abs(golden[key]).max()))


def neighbouring_ways(path: Path, results: Callable[[dict], dict]) -> Iterator[dict]:
    """What float64 gives from parameters moved as far as float32 rounds sums of products."""
    with jax.enable_x64(True):
        golden = load(path, "float64")
        wrong = deviations(results(golden), golden, "float64")
        assert not wrong
        for seed, size in itertools.product(range(6), (3e-7, 1e-6)):
            random = np.random.default_rng(seed)
            moved = dict(golden)
            for number, array in series(golden, "param_").items():
                noise = random.uniform(-size, size, array.shape)
                moved[f"param_{number:02d}"] = array * (1 + noise)
            yield results(moved)


def channels_last(images: np.ndarray) -> jax.Array:
    """Images [N, C, H, W] -> [N, H, W, C]."""
    return jnp.asarray(images.transpose(0, 2, 3, 1))
