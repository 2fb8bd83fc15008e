"""iCaRL (Rebuffi et al. 2017): herded exemplars, distillation, and classification by nearest
mean.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from tsar_jax.errors import UserError, check_weights
from tsar_jax.networks.classifier import Variables
from tsar_jax.plasticity.buffer import Buffer
from tsar_jax.plasticity.herding import herd
from tsar_jax.plasticity.methods.base import (
    FILLED,
    Batch,
    LossAux,
    Method,
    ProblemSpec,
    TaskData,
    TrainState,
    as_examples,
    concat_examples,
    masked_mean,
    replay,
)
from tsar_jax.plasticity.methods.lwf import LOWEST, squared_norm
from tsar_jax.plasticity.methods.task_end import (
    classes_of,
    map_chunks,
    most_classes,
    present_classes,
    seen_classes,
)


class Memory(NamedTuple):
    """old: the net at the last task's end. means [classes, F]: of the exemplars' features.

    known bool [classes]: which classes have exemplars.
    """

    old: Variables
    means: jax.Array
    known: jax.Array


@dataclasses.dataclass(frozen=True)
class ICaRL(Method):
    """L = BCE(W(batch and replay), t) + wd_reg * sum theta^2, over the outputs of classes seen.

    t is the output of the net from before the task for past classes, and 1 or 0 for this task's. At
    a task's end all classes share the buffer alike; earlier ones give up the last of their
    exemplars.
    """

    buffered: ClassVar[bool] = True
    filled_at_ends: ClassVar[bool] = True
    boundaries: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("class",)
    wd_reg: float = 0.00001
    """Weight of the squared parameters, at least 0."""

    def __post_init__(self) -> None:
        check_weights(self, "wd_reg")

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Memory:
        if spec.capacity < spec.classes:
            raise UserError(
                f"buffer is {spec.capacity}, but {spec.classes} classes have to share it: raise it."
            )
        example = spec.normalise(jnp.zeros((1, *spec.image.shape), spec.image.dtype))
        size = spec.net.features(net, example).shape[1]
        return Memory(net, jnp.zeros((spec.classes, size)), jnp.zeros(spec.classes, bool))

    def item_spec(self, spec: ProblemSpec) -> dict[str, jax.ShapeDtypeStruct]:
        return {**super().item_spec(spec), FILLED: jax.ShapeDtypeStruct((), jnp.bool_)}

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        together = concat_examples(as_examples(batch), replay(spec, state.buffer, key))
        net = state.net
        logits, stats = spec.net.train(net, together.images, together.mask)
        old = spec.net.logits(state.memory.old, together.images)
        past, now = seen_classes(spec, batch.task - 1), seen_classes(spec, batch.task)
        truth = jax.nn.one_hot(together.labels, spec.classes)
        losses = optax.sigmoid_binary_cross_entropy(
            logits, jnp.where(past, jax.nn.sigmoid(old), truth)
        )
        loss = masked_mean((losses * now).sum(-1) / now.sum(), together.mask)
        loss += self.wd_reg * squared_norm(net.params)
        return loss, LossAux(logits[: batch.labels.size], stats, state.memory)

    def at_task_end(
        self, spec: ProblemSpec, state: TrainState, data: TaskData, task: jax.Array, key: jax.Array
    ) -> TrainState:
        buffer = self.exemplars(spec, state, data, task)
        of_buffer = TaskData(
            buffer.items["images"],
            buffer.items["labels"],
            buffer.items[FILLED].astype(jnp.float32),
        )
        features = all_features(spec, state.net, of_buffer)
        own = jax.nn.one_hot(of_buffer.labels, spec.classes) * of_buffer.mask[:, None]
        sums = jnp.dot(own.T, features, precision="highest")
        means = sums / jnp.maximum(own.sum(0), 1)[:, None]
        memory = Memory(state.net, means, present_classes(of_buffer, spec.classes))
        return state._replace(buffer=buffer, memory=memory)

    def exemplars(
        self, spec: ProblemSpec, state: TrainState, data: TaskData, task: jax.Array
    ) -> Buffer:
        """Return the buffer with this task's classes: entries quota * r ... hold the r-th class
        seen.
        """
        before, now = seen_classes(spec, task - 1), seen_classes(spec, task)
        quota = spec.capacity // now.sum()
        new, rows, counts = self.herded(spec, state, data, quota)

        indices = jnp.arange(spec.capacity)
        rank, place = indices // quota, indices % quota
        label = jnp.argsort(~now, stable=True)[jnp.minimum(rank, spec.classes - 1)]
        old_quota = spec.capacity // jnp.maximum(before.sum(), 1)
        old_rank = (jnp.cumsum(before) - 1)[label]
        was_in = jnp.clip(old_rank * old_quota + place, 0, spec.capacity - 1)
        old = before[label]
        is_new = label[:, None] == new
        number = jnp.argmax(is_new, -1)
        row = rows[number, place]

        items = state.buffer.items
        shape = (-1,) + (1,) * (items["images"].ndim - 1)
        images = jnp.where(old.reshape(shape), items["images"][was_in], data.stored[row])
        herded = is_new.any(-1) & (place < counts[number])
        full = jnp.where(old, items[FILLED][was_in], herded)
        exemplars = {
            "images": images,
            "labels": label.astype(jnp.int32),
            FILLED: full & (rank < now.sum()),
        }
        return Buffer(exemplars, (quota * now.sum()).astype(jnp.int32))

    def herded(
        self, spec: ProblemSpec, state: TrainState, data: TaskData, quota: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the task's classes [K], rows of their exemplars [K, capacity], images of each
        [K].
        """
        features = all_features(spec, state.net, data)
        classes, here = classes_of(data, spec.classes, most_classes(spec))

        def of_class(label: jax.Array) -> tuple[jax.Array, jax.Array]:
            member = (data.labels == label) & (data.mask > 0)
            return herd(features, member, spec.capacity, quota), member.sum()

        rows, counts = lax.map(of_class, classes)
        return jnp.where(here, classes, -1), rows, counts

    def classify(
        self,
        spec: ProblemSpec,
        state: TrainState,
        model: Variables,
        images: jax.Array,
        test: jax.Array | None = None,
    ) -> jax.Array:
        """Return minus the squared distances [N, classes] of the features from the classes'
        means.
        """
        features, means = spec.net.features(model, images), state.memory.means
        product = jnp.dot(features, means.T, precision="highest")
        lengths = jnp.square(features).sum(1)[:, None] + jnp.square(means).sum(1)
        return jnp.where(state.memory.known, 2 * product - lengths, LOWEST)


def all_features(spec: ProblemSpec, net: Variables, data: TaskData) -> jax.Array:
    """Return features [N, F] of a task's images, normalised as in tests."""
    chunks = map_chunks(lambda part: spec.net.features(net, spec.normalise(part.stored)), data)
    return chunks.reshape(-1, chunks.shape[-1])[: data.labels.shape[0]]
