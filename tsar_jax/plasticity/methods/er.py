"""Experience replay (Riemer et al. 2019; Chaudhry et al. 2019): a draw joins the batch."""

import dataclasses
from typing import Any, ClassVar

import jax

from tsar_jax.models.classifier import Tree, Variables
from tsar_jax.plasticity.methods.base import (
    Batch,
    Bench,
    Images,
    Learner,
    Method,
    Passed,
    cross_entropy,
    join,
    of_batch,
    replay,
)


@dataclasses.dataclass(frozen=True)
class ER(Method):
    """L = CE(W(batch and replay))."""

    buffered: ClassVar[bool] = True

    def loss(
        self, bench: Bench, params: Tree, learner: Learner, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Passed]:
        drawn, memory = self.drawn(bench, learner, key)
        together = join(of_batch(batch), drawn)
        logits, stats = bench.net.train(
            Variables(params, learner.net.stats), together.images, together.present
        )
        loss = cross_entropy(logits, together.labels, together.present)
        return loss, Passed(logits[: batch.labels.size], stats, memory)

    def drawn(self, bench: Bench, learner: Learner, key: jax.Array) -> tuple[Images, Any]:
        """Return what joins the batch, and the method's memory after that."""
        return replay(bench, learner.buffer, key), learner.memory
