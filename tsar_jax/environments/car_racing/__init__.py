"""Car racing, compiled: Gymnasium's CarRacing-v3 as pure functions.

The same for users of Gymnasium's vectors: `tsar_jax.environments.car_racing.vector`.
"""

from tsar_jax.environments.car_racing.racing import (
    Race,
    car_racing,
    drive,
    observe,
    reset,
    start,
    step,
)
from tsar_jax.environments.car_racing.track import Track, given_track, random_track

__all__ = [
    "Race",
    "Track",
    "car_racing",
    "drive",
    "given_track",
    "observe",
    "random_track",
    "reset",
    "start",
    "step",
]
