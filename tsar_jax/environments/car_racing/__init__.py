"""Car racing, compiled: Gymnasium's CarRacing-v3 as pure functions.

`tsar_jax.environments.car_racing.vector` offers the same as one of Gymnasium's vector environments.
"""

from tsar_jax.environments.car_racing.racing import (
    Race,
    car_racing,
    drive,
    observe,
    reset,
    reset_on_track,
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
    "reset_on_track",
    "step",
]
