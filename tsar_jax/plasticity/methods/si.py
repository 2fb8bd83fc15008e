"""Synaptic intelligence (Zenke, Poole, Ganguli 2017): changes of parameters that lowered the
loss cost.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from tsar_jax.errors import check_rates, check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.fisher import weighted_distance
from tsar_jax.plasticity.methods.base import (
    Batch,
    LossAux,
    Method,
    ProblemSpec,
    TaskData,
    TrainState,
)

LARGEST = 1.0
"""Bound of the gradients, which are clipped to +- this component by component, as in Mammoth."""


class Memory(NamedTuple):
    """path: omega, in this task. importance: Omega. anchor: theta~, theta at a task's end."""

    path: Tree
    importance: Tree
    anchor: Tree


@dataclasses.dataclass(frozen=True)
class SI(Method):
    """L = CE(W(batch)) + c * sum Omega (theta - theta~)^2.

    omega is the path integral of minus the gradient: every step adds learning_rate * g^2, g being
    that of L, clipped, as in Mammoth. At a task's end Omega grows by omega / ((theta - theta~)^2 +
    xi).
    """

    boundaries: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("domain", "class", "cumulative")
    c: float = 1.0
    """Weight of the penalty, at least 0."""
    xi: float = 1.0
    """Damping of the importance where a parameter did not move, positive."""

    def __post_init__(self) -> None:
        check_weights(self, "c")
        check_rates(self, "xi")

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Memory:
        zero = jax.tree.map(jnp.zeros_like, net.params)
        return Memory(zero, zero, net.params)

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        loss, aux = super().loss(spec, state, batch, key)
        memory = state.memory
        return loss + self.c * weighted_distance(
            memory.importance, state.net.params, memory.anchor
        ), aux

    def gradient(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, LossAux]:
        loss, gradient, aux = super().gradient(spec, state, batch, key)
        return loss, jax.tree.map(lambda g: jnp.clip(g, -LARGEST, LARGEST), gradient), aux

    def after_step(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, gradient: Tree, key: jax.Array
    ) -> TrainState:
        memory = state.memory
        path = jax.tree.map(
            lambda o, g: o + spec.learning_rate * jnp.square(g), memory.path, gradient
        )
        return state._replace(memory=memory._replace(path=path))

    def at_task_end(
        self, spec: ProblemSpec, state: TrainState, data: TaskData, task: jax.Array, key: jax.Array
    ) -> TrainState:
        memory, params = state.memory, state.net.params
        importance = jax.tree.map(
            lambda total, path, p, a: total + path / (jnp.square(p - a) + self.xi),
            memory.importance,
            memory.path,
            params,
            memory.anchor,
        )
        zero = jax.tree.map(jnp.zeros_like, params)
        return state._replace(memory=Memory(zero, importance, params))
