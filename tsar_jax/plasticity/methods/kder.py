"""ER with knowledge distillation, of CLS-ER's release: the teacher is the net of a step ago."""

import dataclasses
from typing import ClassVar

import jax

from tsar_jax.errors import check_weights
from tsar_jax.networks.classifier import Variables
from tsar_jax.plasticity.methods.base import (
    Batch,
    LossAux,
    Method,
    ProblemSpec,
    TrainState,
    consistency_loss,
    replay,
)


@dataclasses.dataclass(frozen=True)
class KDER(Method):
    """L = reg_weight * MSE(W(b), V(b)) + CE(W(batch and b)).

    V is W before its last step, with the batch-norm statistics that W has after its passes; it
    normalises by those of b, as W does. Its own passes change no statistics. The release publishes
    no best values for it; `reg_weight` has the release's default.
    """

    buffered: ClassVar[bool] = True
    reg_weight: float = 0.1
    """Weight of the consistency loss, at least 0."""

    def __post_init__(self) -> None:
        check_weights(self, "reg_weight")

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Variables:
        return net

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        drawn = replay(spec, state.buffer, key)
        target, _ = spec.net.train(state.memory, drawn.images, drawn.mask)
        net = state.net
        loss, logits, stats = consistency_loss(spec, net, batch, drawn, target, self.reg_weight)
        return loss, LossAux(logits, stats, Variables(net.params, stats))
