"""Experience replay (Riemer et al. 2019; Chaudhry et al. 2019): a draw joins the batch."""

import dataclasses
from typing import Any, ClassVar

import jax

from tsar_jax.plasticity.methods.base import (
    Batch,
    Examples,
    LossAux,
    Method,
    ProblemSpec,
    TrainState,
    as_examples,
    concat_examples,
    cross_entropy,
    replay,
)


@dataclasses.dataclass(frozen=True)
class ER(Method):
    """L = CE(W(batch and replay))."""

    buffered: ClassVar[bool] = True

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        drawn, memory = self.drawn(spec, state, key)
        together = concat_examples(as_examples(batch), drawn)
        logits, stats = spec.net.train(state.net, together.images, together.mask)
        loss = cross_entropy(logits, together.labels, together.mask)
        return loss, LossAux(logits[: batch.labels.size], stats, memory)

    def drawn(self, spec: ProblemSpec, state: TrainState, key: jax.Array) -> tuple[Examples, Any]:
        """Return the examples that join the batch, and the method's memory after the draw."""
        return replay(spec, state.buffer, key), state.memory
