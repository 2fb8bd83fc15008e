"""Online EWC (Kirkpatrick et al. 2017; Schwarz et al. 2018): changes of important parameters
cost.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from tsar_jax.errors import check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.fisher import filter_means, weighted_distance
from tsar_jax.plasticity.methods.base import (
    Batch,
    LossAux,
    Method,
    ProblemSpec,
    TaskData,
    TrainState,
)
from tsar_jax.plasticity.methods.task_end import sum_chunks


class Memory(NamedTuple):
    """fisher: F, importance of the parameters. anchor: theta*, their values at a task's end."""

    fisher: Tree
    anchor: Tree


@dataclasses.dataclass(frozen=True)
class EWCOn(Method):
    """L = CE(W(batch)) + e_lambda * sum F (theta - theta*)^2.

    At a task's end F = gamma * F + the mean over its images of p(y|x) (d log p(y|x) / d theta)^2.
    With `adjust_fisher` every convolution filter then has its mean, as in the SYNERgy release.
    """

    boundaries: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("domain", "class", "cumulative")
    e_lambda: float = 0.7
    """Weight of the penalty, at least 0."""
    gamma: float = 1.0
    """Factor of the old F at a task's end, at least 0."""
    adjust_fisher: bool = False
    """Whether every convolution filter has its mean importance."""

    def __post_init__(self) -> None:
        check_weights(self, "e_lambda", "gamma")

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Memory:
        return Memory(jax.tree.map(jnp.zeros_like, net.params), net.params)

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        loss, aux = super().loss(spec, state, batch, key)
        fisher, anchor = state.memory
        return loss + self.e_lambda * weighted_distance(fisher, state.net.params, anchor), aux

    def at_task_end(
        self, spec: ProblemSpec, state: TrainState, data: TaskData, task: jax.Array, key: jax.Array
    ) -> TrainState:
        def fisher_sum(chunk: TaskData, key: jax.Array) -> Tree:
            labels = jnp.where(chunk.mask > 0, chunk.labels, -1)
            mean, _ = spec.net.fisher(state.net, spec.augment(chunk.stored, key), labels)
            return jax.tree.map(lambda leaf: leaf * labels.size, mean)

        total = sum_chunks(fisher_sum, data, key)
        fisher = jax.tree.map(
            lambda old, new: self.gamma * old + new / data.mask.sum(),
            state.memory.fisher,
            total,
        )
        if self.adjust_fisher:
            fisher = filter_means(fisher)
        return state._replace(memory=Memory(fisher, state.net.params))
