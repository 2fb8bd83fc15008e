"""A-GEM-R: averaged gradient episodic memory (Chaudhry et al. 2019) with a reservoir."""

import dataclasses
from typing import ClassVar

import jax

from tsar_jax.models.classifier import Tree, Variables
from tsar_jax.plasticity.methods.base import (
    Batch,
    Bench,
    Learner,
    Method,
    Passed,
    fit_gradient,
    replay,
)
from tsar_jax.plasticity.projections import project


@dataclasses.dataclass(frozen=True)
class AGEMR(Method):
    """Descends g of CE(W(batch)), freed of what goes against the gradient on a draw."""

    buffered: ClassVar[bool] = True

    def gradient(
        self, bench: Bench, learner: Learner, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, Passed]:
        batch_key, replay_key = jax.random.split(key)
        loss, gradient, passed = super().gradient(bench, learner, batch, batch_key)
        drawn = replay(bench, learner.buffer, replay_key)
        net = Variables(learner.net.params, passed.stats)
        reference, stats = fit_gradient(bench, net, drawn)
        return loss, project(gradient, reference), passed._replace(stats=stats)
