"""A-GEM-R: averaged gradient episodic memory (Chaudhry et al. 2019) with a reservoir."""

import dataclasses
from typing import ClassVar

import jax

from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.methods.base import (
    Batch,
    LossAux,
    Method,
    ProblemSpec,
    TrainState,
    examples_gradient,
    replay,
)
from tsar_jax.plasticity.projections import project


@dataclasses.dataclass(frozen=True)
class AGEMR(Method):
    """Descent along the gradient g of CE(W(batch)), projected so that it does not oppose a
    draw's.
    """

    buffered: ClassVar[bool] = True

    def gradient(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, LossAux]:
        batch_key, replay_key = jax.random.split(key)
        loss, gradient, aux = super().gradient(spec, state, batch, batch_key)
        drawn = replay(spec, state.buffer, replay_key)
        net = Variables(state.net.params, aux.stats)
        reference, stats = examples_gradient(spec, net, drawn)
        return loss, project(gradient, reference), aux._replace(stats=stats)
