"""The interface of continual-learning methods, and plain SGD, which does nothing against
forgetting.

A method is a frozen dataclass of its hyper-parameters with a few pure functions. It overrides those
in which it differs from plain SGD: usually the loss, often the buffer's items, sometimes the work
after a step or at a task's end.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tsar_jax.networks.classifier import Classifier, Tree, Variables
from tsar_jax.plasticity.buffer import Buffer, Draw, add_to_reservoir, draw, empty_buffer
from tsar_jax.plasticity.learner import Learner

FILLED = "occupied"
"""Name of the item that says, in a buffer with gaps, which entries are filled; checkpoints have
it.
"""


@dataclasses.dataclass(frozen=True)
class ProblemSpec:
    """The static description of a problem, which every method is given: it hashes and compares.

    net: the network.
    learning_rate: of SGD; float [] where it is meta-learned, and then the description has no hash.
    capacity: entries of the buffer.
    replay: items of a draw.
    tasks, classes: of the stream.
    task_classes: bool [tasks, classes], which classes belong to a task; an array becomes a tuple.
    image: shape and dtype of an image as it is stored.
    augment: (stored images, key) -> images as the network takes them in training, augmented and
        normalised; replay and estimates of importance use it too.
    normalise: stored images -> images as the network takes them in tests.
    """

    net: Classifier
    learning_rate: float | jax.Array
    capacity: int
    replay: int
    tasks: int
    classes: int
    task_classes: tuple[tuple[bool, ...], ...]
    image: jax.ShapeDtypeStruct
    augment: Callable[[jax.Array, jax.Array], jax.Array]
    normalise: Callable[[jax.Array], jax.Array]

    def __post_init__(self) -> None:
        rows = tuple(tuple(map(bool, row)) for row in self.task_classes)
        object.__setattr__(self, "task_classes", rows)


class Batch(NamedTuple):
    """A step's examples of the stream.

    images [N, ...]: as the network takes them. stored [N, ...]: as they enter a buffer, not
    augmented. labels [N]. mask [N]: 1, or 0 where the last batch of an epoch has run out.
    task: number of the task, from 0.
    """

    images: jax.Array
    stored: jax.Array
    labels: jax.Array
    mask: jax.Array
    task: jax.Array


class TrainState(NamedTuple):
    """Everything that changes within a lifetime.

    net: the working model. buffer: episodic memory, of no items if the method has none. memory: the
    method's other state. step: steps done, int32 [].
    """

    net: Variables
    buffer: Buffer
    memory: Any
    step: jax.Array


class LossAux(NamedTuple):
    """By-products of computing a loss.

    logits [N, classes]: of the stream's batch. stats: of the working model. memory: the method's.
    """

    logits: jax.Array
    stats: Tree
    memory: Any


class Examples(NamedTuple):
    """Images [N, ...] as the network takes them, labels [N] and mask [N], 1 for valid rows, 0 for
    padding.

    items: everything else that a buffer stores of them.
    """

    images: jax.Array
    labels: jax.Array
    mask: jax.Array
    items: dict[str, jax.Array]


class TaskData(NamedTuple):
    """Training images of a task, for methods that go over them at its end.

    stored [N, ...], labels [N], mask [N]: as in a `Batch`, of the whole task.
    """

    stored: jax.Array
    labels: jax.Array
    mask: jax.Array


@dataclasses.dataclass(frozen=True)
class Method:
    """Plain SGD on the stream; a base for all others.

    Class attributes. buffered: whether it has a buffer. filled_at_ends: whether the buffer is
    filled only at the tasks' ends. boundaries: whether it is told where tasks end, which not every
    stream knows. reported: the model whose accuracy is the result. joint: whether it learns all
    tasks at once, as an upper bound. kinds: streams that it can learn, "cumulative" being those
    whose classes return.
    """

    buffered: ClassVar[bool] = False
    filled_at_ends: ClassVar[bool] = False
    boundaries: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    reported: ClassVar[str] = "working"
    kinds: ClassVar[tuple[str, ...]] = ("domain", "class", "cumulative", "general")

    def init(self, spec: ProblemSpec, key: jax.Array) -> TrainState:
        """Return the state before the first batch."""
        net = spec.net.init(key)
        buffer = empty_buffer(spec.capacity, self.item_spec(spec) if self.buffered else {})
        return TrainState(net, buffer, self.init_memory(spec, net), jnp.zeros((), jnp.int32))

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Any:
        """Return the initial state of the method besides network and buffer."""
        return ()

    def item_spec(self, spec: ProblemSpec) -> dict[str, jax.ShapeDtypeStruct]:
        """Return the item spec of the buffer: shape and dtype of an item's arrays by name."""
        return {"images": spec.image, "labels": jax.ShapeDtypeStruct((), jnp.int32)}

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        """Return the loss that SGD descends, by default the cross-entropy of the batch, and
        by-products.
        """
        logits, stats = spec.net.train(state.net, batch.images, batch.mask)
        return cross_entropy(logits, batch.labels, batch.mask), LossAux(logits, stats, state.memory)

    def gradient(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, LossAux]:
        """Return the loss, the direction to descend, and by-products of the loss."""
        (loss, aux), gradient = jax.value_and_grad(
            lambda params: self.loss(spec, with_params(state, params), batch, key), has_aux=True
        )(state.net.params)
        return loss, gradient, aux

    def update(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        """Return state and loss after a batch: SGD, then the buffer, then `after_step`."""
        loss_key, store_key, after_key = jax.random.split(key, 3)
        loss, gradient, aux = self.gradient(spec, state, batch, loss_key)
        params = sgd_step(state.net.params, gradient, spec.learning_rate)
        net = Variables(params, aux.stats)
        state = state._replace(net=net, memory=aux.memory, step=state.step + 1)
        if self.buffered and not self.filled_at_ends:
            # Nothing is stored after a loss that is not finite. This dependence tells the compiler
            # that all reads of the buffer come before the write, so that it need not copy it.
            stored = batch._replace(mask=batch.mask * jnp.isfinite(loss))
            state = self.store(spec, state, stored, aux, store_key)
        return self.after_step(spec, state, batch, gradient, after_key), loss

    def buffer_items(self, batch: Batch, aux: LossAux) -> dict[str, jax.Array]:
        """Return the items of a batch that the buffer is offered, as in `item_spec`."""
        return {"images": batch.stored, "labels": batch.labels}

    def store(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, aux: LossAux, key: jax.Array
    ) -> TrainState:
        """Offer the batch to the buffer: by default a reservoir."""
        items = self.buffer_items(batch, aux)
        buffer = add_to_reservoir(state.buffer, key, items, batch.mask)
        return state._replace(buffer=buffer)

    def after_step(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, gradient: Tree, key: jax.Array
    ) -> TrainState:
        """Return the state after further work that follows a step."""
        return state

    def at_task_end(
        self, spec: ProblemSpec, state: TrainState, data: TaskData, task: jax.Array, key: jax.Array
    ) -> TrainState:
        """Return the state after the work that follows the last step of task number `task`."""
        return state

    def learner(self, spec: ProblemSpec) -> Learner:
        """Return the method as a learner: theta is (), an example a `Batch`, aux the loss.

        It always has a key. A method with `boundaries` learns part of what it does in
        `at_task_end`, which the code that runs it along a stream must call between tasks.

        Inputs of its predictions are images and, for methods that must be told the task, the number
        of the test that they are from (see `classify`), or None.
        """

        def init(theta: Any, key: jax.Array) -> TrainState:
            del theta
            return self.init(spec, key)

        def update(
            theta: Any, state: TrainState, batch: Batch, key: jax.Array
        ) -> tuple[TrainState, jax.Array]:
            del theta
            return self.update(spec, state, batch, key)

        def predict(
            theta: Any, state: TrainState, inputs: tuple[jax.Array, jax.Array | None]
        ) -> jax.Array:
            del theta
            return self.classify(spec, state, self.models(state)[self.reported], *inputs)

        return Learner(init, update, predict)

    def models(self, state: TrainState) -> dict[str, Variables]:
        """Return the models that are tested, by name; `reported` is one of them."""
        return {"working": state.net}

    def classify(
        self,
        spec: ProblemSpec,
        state: TrainState,
        model: Variables,
        images: jax.Array,
        test: jax.Array | None = None,
    ) -> jax.Array:
        """Return logits [N, classes] of one of the models for images as the network takes them.

        test: number of the test that they are from, for methods that must be told the task.
        """
        return spec.net.logits(model, images)


def cross_entropy(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the mean cross-entropy over rows whose mask [N] is 1; 0 where there is none."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return masked_mean(losses, mask)


def squared_error(logits: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the mean squared difference of logits [N, classes] over rows whose mask [N] is 1,
    or 0.
    """
    return masked_mean(jnp.square(logits - target).mean(-1), mask)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the mean of values [N] whose mask [N] is 1; 0 where there is none."""
    mask = mask.astype(values.dtype)
    return (values * mask).sum() / jnp.maximum(mask.sum(), 1)


def examples_loss(
    spec: ProblemSpec, variables: Variables, part: Examples
) -> tuple[jax.Array, Tree]:
    """Return the cross-entropy of images in training, and the batch-norm statistics."""
    logits, stats = spec.net.train(variables, part.images, part.mask)
    return cross_entropy(logits, part.labels, part.mask), stats


def examples_gradient(spec: ProblemSpec, variables: Variables, part: Examples) -> tuple[Tree, Tree]:
    """Return the gradient of `examples_loss`, and the statistics."""
    return jax.grad(
        lambda params: examples_loss(spec, Variables(params, variables.stats), part), has_aux=True
    )(variables.params)


def with_params(state: TrainState, params: Tree) -> TrainState:
    """Return the state with other parameters of the working model."""
    return state._replace(net=state.net._replace(params=params))


def sgd_step(params: Tree, gradient: Tree, learning_rate: float | jax.Array) -> Tree:
    """Return theta - learning_rate * gradient."""
    return jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)


def replay(spec: ProblemSpec, buffer: Buffer, key: jax.Array) -> Examples:
    """Return a draw from the buffer, as the network takes images in training.

    It is drawn from the entries that the items say are filled; if they do not say, from those that
    were ever filled.
    """
    draw_key, augment_key = jax.random.split(key)
    drawn = draw(buffer, draw_key, spec.replay, buffer.items.get(FILLED))
    return augmented_examples(spec, drawn, augment_key)


def augmented_examples(spec: ProblemSpec, drawn: Draw, key: jax.Array) -> Examples:
    """Return drawn items as examples, augmented and normalised."""
    images = spec.augment(drawn.items["images"], key)
    return Examples(images, drawn.items["labels"], drawn.mask, drawn.items)


def as_examples(batch: Batch) -> Examples:
    """Return the stream's batch as examples."""
    return Examples(batch.images, batch.labels, batch.mask, {})


def concat_examples(*parts: Examples) -> Examples:
    """Concatenate sets of examples: images, labels and masks, without other items."""
    images, labels, mask = (jnp.concatenate(field) for field in list(zip(*parts, strict=True))[:3])
    return Examples(images, labels, mask, {})


def forward(
    spec: ProblemSpec, variables: Variables, *parts: Examples
) -> tuple[list[jax.Array], Tree]:
    """Return logits in training of several sets of images, one pass after another; and the
    statistics.

    Without batch norm the images of a pass do not affect each other, and all passes become one.
    """
    if not variables.stats:
        cuts = np.cumsum([part.images.shape[0] for part in parts])[:-1]
        together, stats = spec.net.train(variables, concat_examples(*parts).images, None)
        return jnp.split(together, cuts), stats
    logits: list[jax.Array] = []
    for part in parts:
        part_logits, stats = spec.net.train(variables, part.images, part.mask)
        logits.append(part_logits)
        variables = Variables(variables.params, stats)
    return logits, variables.stats


def with_replay_in_full(
    spec: ProblemSpec, variables: Variables, batch: Examples, drawn: Examples
) -> tuple[jax.Array, jax.Array, Tree]:
    """Return logits in training of drawn; then of batch and drawn together; the statistics."""
    if not variables.stats:
        logits, stats = spec.net.train(variables, concat_examples(batch, drawn).images, None)
        return logits[batch.images.shape[0] :], logits, stats
    (of_drawn, of_all), stats = forward(spec, variables, drawn, concat_examples(batch, drawn))
    return of_drawn, of_all, stats


def consistency_loss(
    spec: ProblemSpec,
    net: Variables,
    batch: Batch,
    drawn: Examples,
    target: jax.Array,
    weight: float,
) -> tuple[jax.Array, jax.Array, Tree]:
    """Return weight * MSE(net(drawn), target) + CE(net(batch and drawn)), batch logits, statistics.

    target [N, classes]: logits that those of the drawn images are to agree with, of another model
    than net: the gradient of a step is that of net alone, while one through a lifetime passes.
    """
    replayed, logits, stats = with_replay_in_full(spec, net, as_examples(batch), drawn)
    together = concat_examples(as_examples(batch), drawn)
    loss = weight * squared_error(replayed, target, drawn.mask)
    loss += cross_entropy(logits, together.labels, together.mask)
    return loss, logits[: batch.labels.size], stats
