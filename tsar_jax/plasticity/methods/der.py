"""Dark experience replay (Buzzega et al. 2020): the network's own former logits are replayed."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tsar_jax.errors import check_weights
from tsar_jax.plasticity.methods.base import (
    Batch,
    LossAux,
    Method,
    ProblemSpec,
    TrainState,
    as_examples,
    cross_entropy,
    forward,
    replay,
    squared_error,
)


@dataclasses.dataclass(frozen=True)
class DER(Method):
    """L = CE(W(batch)) + alpha * MSE(W(b), z), z being the logits when b was stored."""

    buffered: ClassVar[bool] = True
    alpha: float = 0.5
    """Weight of the logits' loss, at least 0."""

    def __post_init__(self) -> None:
        check_weights(self, "alpha")

    def item_spec(self, spec: ProblemSpec) -> dict[str, jax.ShapeDtypeStruct]:
        logits = jax.ShapeDtypeStruct((spec.classes,), jnp.result_type(float))
        return {**super().item_spec(spec), "logits": logits}

    def buffer_items(self, batch: Batch, aux: LossAux) -> dict[str, jax.Array]:
        return {**super().buffer_items(batch, aux), "logits": aux.logits}

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        drawn = replay(spec, state.buffer, key)
        net = state.net
        (logits, again), stats = forward(spec, net, as_examples(batch), drawn)
        loss = cross_entropy(logits, batch.labels, batch.mask)
        loss += self.alpha * squared_error(again, drawn.items["logits"], drawn.mask)
        return loss, LossAux(logits, stats, state.memory)


@dataclasses.dataclass(frozen=True)
class DERPlusPlus(DER):
    """L = DER's + beta * CE(W(b'), y'), b' being a second draw."""

    beta: float = 0.5
    """Weight of the labels' loss, at least 0."""

    def __post_init__(self) -> None:
        check_weights(self, "alpha", "beta")

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        first_key, second_key = jax.random.split(key)
        first = replay(spec, state.buffer, first_key)
        second = replay(spec, state.buffer, second_key)
        net = state.net
        (logits, again, labelled), stats = forward(spec, net, as_examples(batch), first, second)
        loss = cross_entropy(logits, batch.labels, batch.mask)
        loss += self.alpha * squared_error(again, first.items["logits"], first.mask)
        loss += self.beta * cross_entropy(labelled, second.labels, second.mask)
        return loss, LossAux(logits, stats, state.memory)
