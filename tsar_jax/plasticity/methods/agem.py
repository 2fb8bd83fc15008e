"""A-GEM: averaged gradient episodic memory (Chaudhry et al. 2019)."""

import dataclasses
from typing import ClassVar

from tsar_jax.plasticity.methods.agem_r import AGEMR
from tsar_jax.plasticity.methods.task_end import FilledAtEnds


@dataclasses.dataclass(frozen=True)
class AGEM(FilledAtEnds, AGEMR):
    """A-GEM-R whose buffer gets a part of every task at its end, so that a draw is of the past."""

    kinds: ClassVar[tuple[str, ...]] = ("domain", "class", "cumulative")
