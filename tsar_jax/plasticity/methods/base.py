"""What a continual-learning method is, and one that does nothing against forgetting.

A method is a frozen dataclass of its hyper-parameters with a few pure functions. It overrides what
it does otherwise than plain SGD: usually the loss, often what is stored, sometimes what happens
after a step or at a task's end.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tsar_jax.models.classifier import Classifier, Tree, Variables
from tsar_jax.plasticity.buffer import Buffer, Draw, add_to_reservoir, draw, empty_buffer

OCCUPIED = "occupied"
"""What a buffer with gaps calls the item that says where there is none."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every method is given: all static.

    net: the network. rate: learning rate of SGD. capacity: slots of the buffer. replay: items of a
    draw. tasks, classes: of the stream. task_classes: bool [tasks, classes], which belong to a
    task. image: shape and dtype of an image as it is stored. view: (stored images, key) -> images
    as the network takes them in training, augmented and normalised; replay and estimates of
    importance take this way too. normalise: stored images -> as it takes them in tests.
    """

    net: Classifier
    rate: float
    capacity: int
    replay: int
    tasks: int
    classes: int
    task_classes: np.ndarray
    image: jax.ShapeDtypeStruct
    view: Callable[[jax.Array, jax.Array], jax.Array]
    normalise: Callable[[jax.Array], jax.Array]


class Batch(NamedTuple):
    """What a step sees of the stream.

    images [N, ...]: as the network takes them. stored [N, ...]: as they enter a buffer, not
    augmented. labels [N]. present [N]: 1, or 0 where the last batch of an epoch has run out.
    task: number of the task, from 0.
    """

    images: jax.Array
    stored: jax.Array
    labels: jax.Array
    present: jax.Array
    task: jax.Array


class Learner(NamedTuple):
    """Everything that changes within a lifetime.

    net: the working model. buffer: episodic memory, of no items if the method has none. memory:
    whatever else the method keeps. step: steps done.
    """

    net: Variables
    buffer: Buffer
    memory: Any
    step: jax.Array


class Passed(NamedTuple):
    """What the passes of a loss leave behind.

    logits [N, classes]: of the stream's batch. stats: of the working model. memory: the method's.
    """

    logits: jax.Array
    stats: Tree
    memory: Any


class Images(NamedTuple):
    """Images [N, ...] as the network takes them, their labels [N] and who of them is present [N].

    items: whatever else a buffer keeps of them.
    """

    images: jax.Array
    labels: jax.Array
    present: jax.Array
    items: dict[str, jax.Array]


class TaskData(NamedTuple):
    """The training images of a task, for methods that go over them at its end.

    stored [N, ...], labels [N], present [N]: as of a `Batch`, of the whole task.
    """

    stored: jax.Array
    labels: jax.Array
    present: jax.Array


@dataclasses.dataclass(frozen=True)
class Method:
    """Plain SGD on the stream; a base for all others.

    Class attributes. buffered: it has a buffer. filled_at_ends: which takes in nothing but at the
    tasks' ends. boundaries: it is told where tasks end, which not every stream knows. reported:
    which of its models is the result. joint: it is given all tasks at once, as an upper bound.
    kinds: of streams that it can learn, "cumulative" being that of classes which come back.
    """

    buffered: ClassVar[bool] = False
    filled_at_ends: ClassVar[bool] = False
    boundaries: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    reported: ClassVar[str] = "working"
    kinds: ClassVar[tuple[str, ...]] = ("domain", "class", "cumulative", "general")

    def begin(self, bench: Bench, key: jax.Array) -> Learner:
        """The learner before its first step."""
        net = bench.net.init(key)
        buffer = empty_buffer(bench.capacity, self.slot(bench) if self.buffered else {})
        return Learner(net, buffer, self.begin_memory(bench, net), jnp.zeros((), jnp.int32))

    def begin_memory(self, bench: Bench, net: Variables) -> Any:
        """The method's own state."""
        return ()

    def slot(self, bench: Bench) -> dict[str, jax.ShapeDtypeStruct]:
        """What the buffer keeps of an item."""
        return {"images": bench.image, "labels": jax.ShapeDtypeStruct((), jnp.int32)}

    def loss(
        self, bench: Bench, params: Tree, learner: Learner, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Passed]:
        """What SGD descends: by default the cross-entropy of the batch."""
        logits, stats = bench.net.train(
            Variables(params, learner.net.stats), batch.images, batch.present
        )
        return cross_entropy(logits, batch.labels, batch.present), Passed(
            logits, stats, learner.memory
        )

    def gradient(
        self, bench: Bench, learner: Learner, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, Passed]:
        """Loss, direction to descend, and what the passes left."""
        (loss, passed), gradient = jax.value_and_grad(
            lambda params: self.loss(bench, params, learner, batch, key), has_aux=True
        )(learner.net.params)
        return loss, gradient, passed

    def step(
        self, bench: Bench, learner: Learner, batch: Batch, key: jax.Array
    ) -> tuple[Learner, jax.Array]:
        """One step of SGD, then the buffer, then whatever the method does after a step."""
        loss_key, store_key, after_key = jax.random.split(key, 3)
        loss, gradient, passed = self.gradient(bench, learner, batch, loss_key)
        params = descended(learner.net.params, gradient, bench.rate)
        net = Variables(params, passed.stats)
        learner = learner._replace(net=net, memory=passed.memory, step=learner.step + 1)
        if self.buffered and not self.filled_at_ends:
            # Nothing is stored after a loss that is no number: so the compiler knows that whatever
            # reads the buffer comes first, and need not copy it.
            stored = batch._replace(present=batch.present * jnp.isfinite(loss))
            learner = self.store(bench, learner, stored, passed, store_key)
        return self.after_step(bench, learner, batch, gradient, after_key), loss

    def kept(self, batch: Batch, passed: Passed) -> dict[str, jax.Array]:
        """What the buffer is offered of a batch, as `slot` says."""
        return {"images": batch.stored, "labels": batch.labels}

    def store(
        self, bench: Bench, learner: Learner, batch: Batch, passed: Passed, key: jax.Array
    ) -> Learner:
        """Offers the batch to the buffer: by default a reservoir."""
        items = self.kept(batch, passed)
        buffer = add_to_reservoir(learner.buffer, key, items, batch.present)
        return learner._replace(buffer=buffer)

    def after_step(
        self, bench: Bench, learner: Learner, batch: Batch, gradient: Tree, key: jax.Array
    ) -> Learner:
        """What else happens after a step."""
        return learner

    def at_task_end(
        self, bench: Bench, learner: Learner, data: TaskData, task: jax.Array, key: jax.Array
    ) -> Learner:
        """What happens after the last step of task number `task`."""
        return learner

    def models(self, learner: Learner) -> dict[str, Variables]:
        """The models that are tested, by name; `reported` is one of them."""
        return {"working": learner.net}

    def classify(
        self,
        bench: Bench,
        learner: Learner,
        model: Variables,
        images: jax.Array,
        test: jax.Array | None = None,
    ) -> jax.Array:
        """Logits [N, classes] of one of the models for images as the network takes them.

        test: number of the test that they are from, for methods that must be told the task.
        """
        return bench.net.logits(model, images)


def cross_entropy(logits: jax.Array, labels: jax.Array, present: jax.Array) -> jax.Array:
    """Mean cross-entropy over those present; 0 where nobody is."""
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return mean_present(each, present)


def squared_error(logits: jax.Array, target: jax.Array, present: jax.Array) -> jax.Array:
    """Mean squared difference of logits [N, classes] over those present; 0 where nobody is."""
    return mean_present(jnp.square(logits - target).mean(-1), present)


def mean_present(values: jax.Array, present: jax.Array) -> jax.Array:
    """Mean of values [N] over those present; 0 where nobody is."""
    present = present.astype(values.dtype)
    return (values * present).sum() / jnp.maximum(present.sum(), 1)


def fit(bench: Bench, variables: Variables, part: Images) -> tuple[jax.Array, Tree]:
    """Cross-entropy of images in training, and the statistics."""
    logits, stats = bench.net.train(variables, part.images, part.present)
    return cross_entropy(logits, part.labels, part.present), stats


def fit_gradient(bench: Bench, variables: Variables, part: Images) -> tuple[Tree, Tree]:
    """Gradient of `fit`, and the statistics."""
    return jax.grad(
        lambda params: fit(bench, Variables(params, variables.stats), part), has_aux=True
    )(variables.params)


def descended(params: Tree, gradient: Tree, rate: float) -> Tree:
    """theta - rate * gradient."""
    return jax.tree.map(lambda p, g: p - rate * g, params, gradient)


def replay(bench: Bench, buffer: Buffer, key: jax.Array) -> Images:
    """A draw from the buffer, as the network takes images in training.

    Of the slots that its items say are occupied; if they do not say, of those ever filled.
    """
    draw_key, view_key = jax.random.split(key)
    drawn = draw(buffer, draw_key, bench.replay, buffer.items.get(OCCUPIED))
    return seen(bench, drawn, view_key)


def seen(bench: Bench, drawn: Draw, key: jax.Array) -> Images:
    """What was drawn, augmented and normalised."""
    images = bench.view(drawn.items["images"], key)
    return Images(images, drawn.items["labels"], drawn.present, drawn.items)


def of_batch(batch: Batch) -> Images:
    """The stream's batch."""
    return Images(batch.images, batch.labels, batch.present, {})


def join(*parts: Images) -> Images:
    """Several sets of images as one; only of images, labels and presence."""
    images, labels, present = (
        jnp.concatenate(field) for field in list(zip(*parts, strict=True))[:3]
    )
    return Images(images, labels, present, {})


def passes(bench: Bench, variables: Variables, *parts: Images) -> tuple[list[jax.Array], Tree]:
    """Logits in training of several sets of images, one pass after another; and the statistics.

    Without batch norm a pass does not see who else is in it, and all become one.
    """
    if not variables.stats:
        cuts = np.cumsum([part.images.shape[0] for part in parts])[:-1]
        together, stats = bench.net.train(variables, join(*parts).images, None)
        return jnp.split(together, cuts), stats
    logits: list[jax.Array] = []
    for part in parts:
        one, stats = bench.net.train(variables, part.images, part.present)
        logits.append(one)
        variables = Variables(variables.params, stats)
    return logits, variables.stats


def with_replay_in_full(
    bench: Bench, variables: Variables, batch: Images, drawn: Images
) -> tuple[jax.Array, jax.Array, Tree]:
    """Logits in training of what was drawn; then of batch and drawn together; the statistics."""
    if not variables.stats:
        logits, stats = bench.net.train(variables, join(batch, drawn).images, None)
        return logits[batch.images.shape[0] :], logits, stats
    (of_drawn, of_all), stats = passes(bench, variables, drawn, join(batch, drawn))
    return of_drawn, of_all, stats


def consistent_fit(
    bench: Bench, net: Variables, batch: Batch, drawn: Images, target: jax.Array, weight: float
) -> tuple[jax.Array, jax.Array, Tree]:
    """weight * MSE(net(drawn), target) + CE(net(batch and drawn)), logits of the batch, statistics.

    target [N, classes]: what the logits of the images drawn are to agree with; no gradient passes.
    """
    again, logits, stats = with_replay_in_full(bench, net, of_batch(batch), drawn)
    together = join(of_batch(batch), drawn)
    loss = weight * squared_error(again, jax.lax.stop_gradient(target), drawn.present)
    loss += cross_entropy(logits, together.labels, together.present)
    return loss, logits[: batch.labels.size], stats
