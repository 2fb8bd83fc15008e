"""Dark experience replay (Buzzega et al. 2020): the network's own former logits are replayed."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tsar_jax.errors import check_weights
from tsar_jax.models.classifier import Tree, Variables
from tsar_jax.plasticity.methods.base import (
    Batch,
    Bench,
    Learner,
    Method,
    Passed,
    cross_entropy,
    of_batch,
    passes,
    replay,
    squared_error,
)


@dataclasses.dataclass(frozen=True)
class DER(Method):
    """L = CE(W(batch)) + alpha * MSE(W(b), z), z being the logits when b was stored."""

    buffered: ClassVar[bool] = True
    alpha: float = 0.5
    """Weight of the logits' loss."""

    def __post_init__(self) -> None:
        check_weights(self, "alpha")

    def slot(self, bench: Bench) -> dict[str, jax.ShapeDtypeStruct]:
        logits = jax.ShapeDtypeStruct((bench.classes,), jnp.result_type(float))
        return {**super().slot(bench), "logits": logits}

    def kept(self, batch: Batch, passed: Passed) -> dict[str, jax.Array]:
        return {**super().kept(batch, passed), "logits": passed.logits}

    def loss(
        self, bench: Bench, params: Tree, learner: Learner, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Passed]:
        drawn = replay(bench, learner.buffer, key)
        net = Variables(params, learner.net.stats)
        (logits, again), stats = passes(bench, net, of_batch(batch), drawn)
        loss = cross_entropy(logits, batch.labels, batch.present)
        loss += self.alpha * squared_error(again, drawn.items["logits"], drawn.present)
        return loss, Passed(logits, stats, learner.memory)


@dataclasses.dataclass(frozen=True)
class DERPlusPlus(DER):
    """L = DER's + beta * CE(W(b'), y'), b' being a second draw."""

    beta: float = 0.5
    """Weight of the labels' loss."""

    def __post_init__(self) -> None:
        check_weights(self, "alpha", "beta")

    def loss(
        self, bench: Bench, params: Tree, learner: Learner, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Passed]:
        first_key, second_key = jax.random.split(key)
        first = replay(bench, learner.buffer, first_key)
        second = replay(bench, learner.buffer, second_key)
        net = Variables(params, learner.net.stats)
        (logits, again, labelled), stats = passes(bench, net, of_batch(batch), first, second)
        loss = cross_entropy(logits, batch.labels, batch.present)
        loss += self.alpha * squared_error(again, first.items["logits"], first.present)
        loss += self.beta * cross_entropy(labelled, second.labels, second.present)
        return loss, Passed(logits, stats, learner.memory)
