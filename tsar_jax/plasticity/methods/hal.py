"""HAL: hindsight anchor learning (Chaudhry et al. 2021): replay, and anchors with fixed outputs."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import check_frequencies, check_positive, check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.buffer import put, ring_indices
from tsar_jax.plasticity.methods.base import (
    FILLED,
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
from tsar_jax.plasticity.methods.er import ER
from tsar_jax.plasticity.methods.task_end import buffer_range, classes_of, most_classes


class Memory(NamedTuple):
    """anchors [tasks, K, H, W, C], as the network takes images, for each task's K or fewer classes.

    present [tasks, K]: mask of the anchors; the name is a checkpoint's. features [F]: phi, a moving
    average over this task's images. offered: images that this task offered the buffer.
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
    most, not too far from the task's images. Tasks have equal parts of the buffer, each a ring.
    """

    boundaries: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("domain", "class", "cumulative")
    hal_lambda: float = 0.1
    """Weight of the anchors' loss, at least 0."""
    beta: float = 0.5
    """Decay of phi, 0 to 1."""
    gamma: float = 0.1
    """Weight of an anchor's distance from phi, at least 0."""
    steps_on_anchors: int = 100
    """Steps of gradient ascent on an anchor, at least 1."""
    finetuning_epochs: int = 1
    """Steps of M on draws from the buffer, at least 1."""

    def __post_init__(self) -> None:
        check_weights(self, "hal_lambda", "gamma")
        check_frequencies(self, "beta")
        check_positive(self, "steps_on_anchors", "finetuning_epochs")

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Memory:
        shape = spec.tasks, most_classes(spec)
        example = spec.normalise(jnp.zeros((1, *spec.image.shape), spec.image.dtype))
        return Memory(
            anchors=jnp.zeros((*shape, *example.shape[1:]), example.dtype),
            present=jnp.zeros(shape),
            features=jnp.zeros_like(spec.net.features(net, example)[0]),
            offered=jnp.zeros((), jnp.int32),
        )

    def item_spec(self, spec: ProblemSpec) -> dict[str, jax.ShapeDtypeStruct]:
        return {**super().item_spec(spec), FILLED: jax.ShapeDtypeStruct((), jnp.bool_)}

    def buffer_items(self, batch: Batch, aux: LossAux) -> dict[str, jax.Array]:
        return {**super().buffer_items(batch, aux), FILLED: jnp.ones(batch.labels.shape, bool)}

    def store(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, aux: LossAux, key: jax.Array
    ) -> TrainState:
        first, after = buffer_range(spec, batch.task)
        mask = batch.mask.astype(jnp.int32)
        ring = ring_indices(first, after - first, state.memory.offered, mask)
        indices = jnp.where(mask > 0, ring, spec.capacity)
        buffer = put(
            state.buffer, indices, self.buffer_items(batch, aux), state.buffer.seen + mask.sum()
        )
        memory = state.memory._replace(offered=state.memory.offered + mask.sum())
        return state._replace(buffer=buffer, memory=memory)

    def gradient(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, LossAux]:
        loss, gradient, aux = super().gradient(spec, state, batch, key)
        params, memory = state.net.params, state.memory
        anchors = memory.anchors.reshape(-1, *memory.anchors.shape[2:])
        ahead = Variables(sgd_step(params, gradient, spec.learning_rate), aux.stats)
        target = spec.net.logits(ahead, anchors)

        def anchor_loss(params: Tree) -> jax.Array:
            logits = spec.net.logits(Variables(params, aux.stats), anchors)
            return self.hal_lambda * squared_error(logits, target, memory.present.reshape(-1))

        anchor_term, anchor_gradient = jax.value_and_grad(anchor_loss)(params)
        return loss + anchor_term, jax.tree.map(jnp.add, gradient, anchor_gradient), aux

    def after_step(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, gradient: Tree, key: jax.Array
    ) -> TrainState:
        batch_features = spec.net.features(state.net, batch.images)
        mean = jax.vmap(masked_mean, (1, None))(batch_features, batch.mask)
        features = self.beta * state.memory.features + (1 - self.beta) * mean
        return state._replace(memory=state.memory._replace(features=features))

    def at_task_end(
        self, spec: ProblemSpec, state: TrainState, data: TaskData, task: jax.Array, key: jax.Array
    ) -> TrainState:
        tune_key, begin_key = jax.random.split(key)
        memory = state.memory
        labels, here = classes_of(data, spec.classes, memory.present.shape[1])
        initial_anchors = jax.random.uniform(begin_key, (labels.size, *memory.anchors.shape[2:]))
        tuned = self.tuned(spec, state, tune_key)
        anchors = self.ascended(spec, state, tuned, initial_anchors, labels)
        memory = Memory(
            anchors=memory.anchors.at[task].set(anchors),
            present=memory.present.at[task].set(here.astype(memory.present.dtype)),
            features=jnp.zeros_like(memory.features),
            offered=jnp.zeros_like(memory.offered),
        )
        return state._replace(memory=memory)

    def tuned(self, spec: ProblemSpec, state: TrainState, key: jax.Array) -> Variables:
        """Return M: W after some steps on the buffer."""

        def step(net: Variables, key: jax.Array) -> tuple[Variables, None]:
            drawn = replay(spec, state.buffer, key)
            gradient, stats = examples_gradient(spec, net, drawn)
            return Variables(sgd_step(net.params, gradient, spec.learning_rate), stats), None

        return lax.scan(step, state.net, jax.random.split(key, self.finetuning_epochs))[0]

    def ascended(
        self,
        spec: ProblemSpec,
        state: TrainState,
        tuned: Variables,
        initial_anchors: jax.Array,
        labels: jax.Array,
    ) -> jax.Array:
        """Return anchors [K, H, W, C] for labels [K] after gradient ascent. Anchors are
        independent.
        """

        def harm(anchors: jax.Array) -> jax.Array:
            mask = jnp.ones(labels.shape)
            forgotten = cross_entropy(spec.net.logits(tuned, anchors), labels, mask)
            known = cross_entropy(spec.net.logits(state.net, anchors), labels, mask)
            features = spec.net.features(state.net, anchors)
            distance = jnp.square(features - state.memory.features).sum()
            return labels.size * (forgotten - known) - self.gamma * distance

        return lax.fori_loop(
            0,
            self.steps_on_anchors,
            lambda _, anchors: anchors + spec.learning_rate * jax.grad(harm)(anchors),
            initial_anchors,
        )
