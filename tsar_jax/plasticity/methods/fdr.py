"""FDR: function distance regularisation (Benjamin, Rolnick, Kording 2019)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tsar_jax.errors import check_weights
from tsar_jax.plasticity.methods.base import (
    Batch,
    LossAux,
    ProblemSpec,
    TaskData,
    TrainState,
    as_examples,
    cross_entropy,
    forward,
    masked_mean,
    replay,
)
from tsar_jax.plasticity.methods.task_end import FilledAtEnds


@dataclasses.dataclass(frozen=True)
class FDR(FilledAtEnds):
    """L = CE(W(batch)) + alpha * |softmax(W(b)) - softmax(z)|, z being the logits at a task's end.

    Mammoth descends the two terms one after another, and the second with a weight of 1.
    """

    kinds: ClassVar[tuple[str, ...]] = ("domain", "class", "cumulative")
    alpha: float = 1.0
    """Weight of the distance, at least 0."""

    def __post_init__(self) -> None:
        check_weights(self, "alpha")

    def item_spec(self, spec: ProblemSpec) -> dict[str, jax.ShapeDtypeStruct]:
        logits = jax.ShapeDtypeStruct((spec.classes,), jnp.result_type(float))
        return {**super().item_spec(spec), "logits": logits}

    def items(
        self, spec: ProblemSpec, state: TrainState, chosen: TaskData, key: jax.Array
    ) -> dict[str, jax.Array]:
        logits, _ = spec.net.train(state.net, spec.augment(chosen.stored, key), chosen.mask)
        return {**super().items(spec, state, chosen, key), "logits": logits}

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        drawn = replay(spec, state.buffer, key)
        net = state.net
        (logits, again), stats = forward(spec, net, as_examples(batch), drawn)
        loss = cross_entropy(logits, batch.labels, batch.mask)
        distance = function_distance(again, drawn.items["logits"])
        loss += self.alpha * masked_mean(distance, drawn.mask)
        return loss, LossAux(logits, stats, state.memory)


def function_distance(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Return |softmax(logits) - softmax(target)| [N], both [N, classes].

    Where the distance is 0, as just after a task's end, so is its gradient.
    """
    square = jnp.square(jax.nn.softmax(logits) - jax.nn.softmax(target)).sum(-1)
    differs = square > 0
    return jnp.where(differs, jnp.sqrt(jnp.where(differs, square, 1)), 0)
