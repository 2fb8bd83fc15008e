"""Plain SGD, which forgets; and the same on all tasks at once, which need not."""

import dataclasses
from typing import ClassVar

from tsar_jax.plasticity.methods.base import Method


@dataclasses.dataclass(frozen=True)
class SGD(Method):
    """Fine-tuning: the lower bound."""


@dataclasses.dataclass(frozen=True)
class Joint(Method):
    """SGD on all tasks mixed into one: the upper bound."""

    joint: ClassVar[bool] = True
