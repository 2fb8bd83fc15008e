"""Seeds of episodes, checked where they enter an environment."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tsar_jax.errors import UserError, checked_seed


def checked_seeds(seeds: Any, count: int) -> np.ndarray:
    """Return the seeds of `count` episodes as uint32 [count].

    Raises UserError where they are of another number, or one is no integer in [0, 2**32).
    """
    if isinstance(seeds, np.ndarray) and seeds.dtype == np.uint32 and seeds.shape == (count,):
        return seeds
    if not isinstance(seeds, Sequence | np.ndarray) or len(seeds) != count:
        given = f"has {len(seeds)} entries" if hasattr(seeds, "__len__") else f"is {seeds!r}"
        raise UserError(f"seed {given}, but there are {count} environments: give each its own.")
    checked = [checked_seed(f"the seed of environment {i}", s) for i, s in enumerate(seeds)]
    return np.asarray(checked, np.uint32)
