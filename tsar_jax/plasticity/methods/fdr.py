"""FDR: function distance regularisation (Benjamin, Rolnick, Kording 2019)."""

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
    Passed,
    TaskData,
    cross_entropy,
    mean_present,
    of_batch,
    passes,
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
    """Weight of the distance."""

    def __post_init__(self) -> None:
        check_weights(self, "alpha")

    def slot(self, bench: Bench) -> dict[str, jax.ShapeDtypeStruct]:
        logits = jax.ShapeDtypeStruct((bench.classes,), jnp.result_type(float))
        return {**super().slot(bench), "logits": logits}

    def items(
        self, bench: Bench, learner: Learner, chosen: TaskData, key: jax.Array
    ) -> dict[str, jax.Array]:
        logits, _ = bench.net.train(learner.net, bench.view(chosen.stored, key), chosen.present)
        return {**super().items(bench, learner, chosen, key), "logits": logits}

    def loss(
        self, bench: Bench, params: Tree, learner: Learner, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Passed]:
        drawn = replay(bench, learner.buffer, key)
        net = Variables(params, learner.net.stats)
        (logits, again), stats = passes(bench, net, of_batch(batch), drawn)
        loss = cross_entropy(logits, batch.labels, batch.present)
        distance = function_distance(again, drawn.items["logits"])
        loss += self.alpha * mean_present(distance, drawn.present)
        return loss, Passed(logits, stats, learner.memory)


def function_distance(logits: jax.Array, target: jax.Array) -> jax.Array:
    """|softmax(logits) - softmax(target)|, both [N, classes]: [N].

    Where it is 0, so is its slope, which is the case just after a task's end.
    """
    square = jnp.square(jax.nn.softmax(logits) - jax.nn.softmax(target)).sum(-1)
    differs = square > 0
    return jnp.where(differs, jnp.sqrt(jnp.where(differs, square, 1)), 0)
