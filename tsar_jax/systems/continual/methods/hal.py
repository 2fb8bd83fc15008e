"""HAL: hindsight anchor learning (Chaudhry et al. 2021): replay, and points that must not move."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import check_frequencies, check_positive, check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.buffer import put, ring_indices
from tsar_jax.systems.continual.methods.base import (
    OCCUPIED,
    Batch,
    LossAux,
    ProblemSpec,
    TaskData,
    TrainState,
    cross_entropy,
    examples_gradient,
    masked_mean,
    replay,
    sgd_step,
    squared_error,
)
from tsar_jax.systems.continual.methods.er import ER
from tsar_jax.systems.continual.methods.task_end import classes_of, most_classes, share


class Memory(NamedTuple):
    """anchors [tasks, K, H, W, C], as the network takes images: of each task's K or fewer classes.

    present [tasks, K]: 1 where there is one. features [F]: phi, a moving average over this task's
    images. offered: images that this task offered the buffer.
    """

    anchors: jax.Array
    present: jax.Array
    features: jax.Array
    offered: jax.Array


@dataclasses.dataclass(frozen=True)
class HAL(ER):
    """L = ER's + hal_lambda * MSE(W(anchors), W'(anchors)), W' = W after a step of ER, held fixed.

    At a task's end a copy M of W is trained a little on the buffer. Every class y of the task gets
    the anchor that ascends CE_M(e, y) - CE_W(e, y) - gamma * |phi(e) - phi|^2: what M forgets
    most, not too far from the task's images. Tasks have equal shares of the buffer, each a ring.
    """

    boundaries: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("domain", "class", "cumulative")
    hal_lambda: float = 0.1
    """Weight of the anchors' loss."""
    beta: float = 0.5
    """Decay of phi."""
    gamma: float = 0.1
    """Weight of an anchor's distance from phi."""
    steps_on_anchors: int = 100
    """Steps of gradient ascent on an anchor."""
    finetuning_epochs: int = 1
    """Steps of M on draws from the buffer."""

    def __post_init__(self) -> None:
        check_weights(self, "hal_lambda", "gamma")
        check_frequencies(self, "beta")
        check_positive(self, "steps_on_anchors", "finetuning_epochs")

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Memory:
        places = spec.tasks, most_classes(spec)
        shown = spec.normalise(jnp.zeros((1, *spec.image.shape), spec.image.dtype))
        return Memory(
            anchors=jnp.zeros((*places, *shown.shape[1:]), shown.dtype),
            present=jnp.zeros(places),
            features=jnp.zeros_like(spec.net.features(net, shown)[0]),
            offered=jnp.zeros((), jnp.int32),
        )

    def slot(self, spec: ProblemSpec) -> dict[str, jax.ShapeDtypeStruct]:
        return {**super().slot(spec), OCCUPIED: jax.ShapeDtypeStruct((), jnp.bool_)}

    def kept(self, batch: Batch, passed: LossAux) -> dict[str, jax.Array]:
        return {**super().kept(batch, passed), OCCUPIED: jnp.ones(batch.labels.shape, bool)}

    def store(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, passed: LossAux, key: jax.Array
    ) -> TrainState:
        first, after = share(spec, batch.task)
        mask = batch.mask.astype(jnp.int32)
        ring = ring_indices(first, after - first, state.memory.offered, mask)
        indices = jnp.where(mask > 0, ring, spec.capacity)
        buffer = put(
            state.buffer, indices, self.kept(batch, passed), state.buffer.seen + mask.sum()
        )
        memory = state.memory._replace(offered=state.memory.offered + mask.sum())
        return state._replace(buffer=buffer, memory=memory)

    def gradient(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, LossAux]:
        loss, gradient, passed = super().gradient(spec, state, batch, key)
        params, memory = state.net.params, state.memory
        anchors = memory.anchors.reshape(-1, *memory.anchors.shape[2:])
        ahead = Variables(sgd_step(params, gradient, spec.rate), passed.stats)
        target = spec.net.logits(ahead, anchors)

        def moved(params: Tree) -> jax.Array:
            logits = spec.net.logits(Variables(params, passed.stats), anchors)
            return self.hal_lambda * squared_error(logits, target, memory.present.reshape(-1))

        more, anchoring = jax.value_and_grad(moved)(params)
        return loss + more, jax.tree.map(jnp.add, gradient, anchoring), passed

    def after_step(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, gradient: Tree, key: jax.Array
    ) -> TrainState:
        each = spec.net.features(state.net, batch.images)
        mean = jax.vmap(masked_mean, (1, None))(each, batch.mask)
        features = self.beta * state.memory.features + (1 - self.beta) * mean
        return state._replace(memory=state.memory._replace(features=features))

    def at_task_end(
        self, spec: ProblemSpec, state: TrainState, data: TaskData, task: jax.Array, key: jax.Array
    ) -> TrainState:
        tune_key, begin_key = jax.random.split(key)
        memory = state.memory
        labels, here = classes_of(data, spec.classes, memory.present.shape[1])
        begin = jax.random.uniform(begin_key, (labels.size, *memory.anchors.shape[2:]))
        tuned = self.tuned(spec, state, tune_key)
        anchors = self.ascended(spec, state, tuned, begin, labels)
        memory = Memory(
            anchors=memory.anchors.at[task].set(anchors),
            present=memory.present.at[task].set(here.astype(memory.present.dtype)),
            features=jnp.zeros_like(memory.features),
            offered=jnp.zeros_like(memory.offered),
        )
        return state._replace(memory=memory)

    def tuned(self, spec: ProblemSpec, state: TrainState, key: jax.Array) -> Variables:
        """M: W after some steps on the buffer."""

        def step(net: Variables, key: jax.Array) -> tuple[Variables, None]:
            drawn = replay(spec, state.buffer, key)
            gradient, stats = examples_gradient(spec, net, drawn)
            return Variables(sgd_step(net.params, gradient, spec.rate), stats), None

        return lax.scan(step, state.net, jax.random.split(key, self.finetuning_epochs))[0]

    def ascended(
        self,
        spec: ProblemSpec,
        state: TrainState,
        tuned: Variables,
        begin: jax.Array,
        labels: jax.Array,
    ) -> jax.Array:
        """Anchors [K, H, W, C] for labels [K], from where they begin. An anchor sees no other."""

        def harm(anchors: jax.Array) -> jax.Array:
            everyone = jnp.ones(labels.shape)
            forgotten = cross_entropy(spec.net.logits(tuned, anchors), labels, everyone)
            known = cross_entropy(spec.net.logits(state.net, anchors), labels, everyone)
            features = spec.net.features(state.net, anchors)
            apart = jnp.square(features - state.memory.features).sum()
            return labels.size * (forgotten - known) - self.gamma * apart

        return lax.fori_loop(
            0,
            self.steps_on_anchors,
            lambda _, anchors: anchors + spec.rate * jax.grad(harm)(anchors),
            begin,
        )
