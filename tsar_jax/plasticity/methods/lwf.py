"""Learning without forgetting (Li, Hoiem 2016): distillation from the old net on new images."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from tsar_jax.errors import check_rates, check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.methods.base import (
    Batch,
    LossAux,
    Method,
    ProblemSpec,
    TaskData,
    TrainState,
    cross_entropy,
    masked_mean,
)
from tsar_jax.plasticity.methods.task_end import seen_classes

LOWEST = -1e9
"""Logit of impossible classes; finite, so that 0 times it is 0."""


@dataclasses.dataclass(frozen=True)
class LwF(Method):
    """L = CE(W(x)) + alpha * H(softmax(z/T), softmax(W(x)/T)) + wd_reg * sum theta^2.

    z are the logits of the net from before the task for the same images, and H is the cross-entropy
    of one distribution under the other: over the classes of past tasks, CE over those and this
    task's. The new outputs are not trained alone at first, as in Mammoth, for z is without them.
    """

    boundaries: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("class",)
    alpha: float = 1.0
    """Weight of the distillation, at least 0."""
    softmax_temp: float = 2.0
    """Temperature T of the softmax, positive."""
    wd_reg: float = 0.0005
    """Weight of the squared parameters, at least 0."""

    def __post_init__(self) -> None:
        check_weights(self, "alpha", "wd_reg")
        check_rates(self, "softmax_temp")

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Variables:
        return net

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        net = state.net
        logits, stats = spec.net.train(net, batch.images, batch.mask)
        old = spec.net.logits(state.memory, batch.images)
        past, now = seen_classes(spec, batch.task - 1), seen_classes(spec, batch.task)
        loss = cross_entropy(jnp.where(now, logits, LOWEST), batch.labels, batch.mask)
        distilled = distillation(logits, old, past, self.softmax_temp)
        loss += self.alpha * masked_mean(distilled, batch.mask)
        loss += self.wd_reg * squared_norm(net.params)
        return loss, LossAux(logits, stats, state.memory)

    def at_task_end(
        self, spec: ProblemSpec, state: TrainState, data: TaskData, task: jax.Array, key: jax.Array
    ) -> TrainState:
        return state._replace(memory=state.net)


def distillation(
    logits: jax.Array, target: jax.Array, usable: jax.Array, temperature: float
) -> jax.Array:
    """Return -sum softmax(target/T) log softmax(logits/T) over usable classes [classes]: [N].

    logits, target [N, classes]. 0 where no class is usable.
    """
    new = jax.nn.log_softmax(jnp.where(usable, logits / temperature, LOWEST))
    old = jax.nn.softmax(jnp.where(usable, target / temperature, LOWEST))
    return -(old * new * usable).sum(-1)


def squared_norm(params: Tree) -> jax.Array:
    """Return sum theta^2."""
    return jnp.square(optax.global_norm(params))
