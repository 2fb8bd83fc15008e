"""Continual learning: one of the methods on one of the streams.

Sarfraz, Arani, Zonooz (2022), arXiv 2206.04016, and its peers in the frame of Mammoth (Buzzega et
al. 2020). A step is one batch; when a task ends, all models are tested.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.data.continual.types import Stream, StreamState, Test
from tsar_jax.errors import (
    UserError,
    check_known,
    check_positive,
    check_rates,
    check_seed,
    shown,
)
from tsar_jax.networks.classifier import Classifier, Variables
from tsar_jax.plasticity.learner import Learner
from tsar_jax.plasticity.methods import (
    METHODS,
    Batch,
    Method,
    ProblemSpec,
    TaskData,
    TrainState,
)
from tsar_jax.plasticity.methods.published import RELEASES, Release
from tsar_jax.plasticity.methods.settings import from_pairs, settings_class
from tsar_jax.systems.continual.supported import check_supported
from tsar_jax.training.config import FORMERLY_ZERO, chosen_by, earlier
from tsar_jax.training.loop import LoopConfig
from tsar_jax.training.system import Arrays, Metrics, System

CLASS_IL, TASK_IL = 0, 1


def _settings_class(method: str) -> type[Any]:
    """Return the dataclass of a method's settings."""
    return settings_class(METHODS.find(method))


def _earlier_settings(method: str, stored: Any) -> Any:
    """Return settings of a method as JSON values, of earlier versions a list of "name=value"."""
    return from_pairs(METHODS.find(method), stored) if isinstance(stored, list) else stored


@dataclasses.dataclass(frozen=True)
class ContinualConfig(LoopConfig):
    """One method on one stream.

    Raises:
        UserError: a value is impossible.
    """

    method: str = "synergy"
    """Name of the method: sgd, joint, er, der, derpp, clser, synergy ...: as --help lists them."""
    stream: str = "rot-mnist"
    """Name of the stream: rot-mnist, perm-mnist, seq-mnist, mnist-360, seq-cifar10, seq-tinyimg,
    gcil-cifar100, gcil-cifar100-longtail, gcil-cifar100-noise; or rot-, perm-, seq-, gcil- and any
    prepared data set.
    """
    buffer: int = 500
    """Entries of the episodic memory, at least 1."""
    # Replaced by a number once the stream is known, before the loop reads it.
    steps: int | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)  # type: ignore[assignment]
    """Steps of the whole run; None: the whole stream."""
    lr: float | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)
    """Learning rate of SGD, positive; None: as published, like every None that follows."""
    batch: int | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)
    """New images of a step, at least 1."""
    replay: int | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)
    """Images of a draw from the buffer, at least 1."""
    epochs: int | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)
    """Passes over every task, at least 1."""
    settings: Any = dataclasses.field(
        default=None, metadata=chosen_by("method", _settings_class, _earlier_settings)
    )
    """Hyper-parameters of the method, from `method_settings`; None: the published best."""
    published: Release = dataclasses.field(default="synergy", metadata=earlier("synergy"))
    """Release, SYNERgy's or CLS-ER's, whose published best is taken where both have one."""
    init: str | None = dataclasses.field(default=None, metadata=earlier(None))
    """Run of continual_train whose network is the initial one; None: a random one."""
    tasks: int | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)
    """Number of tasks, at least 1; None: as published."""
    phase_size: int | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)
    """Images of a phase of GCIL (the releases' epoch_size), at least 1; None: as published."""
    phase_classes: int | None = dataclasses.field(default=None, metadata=earlier(None))
    """Most classes of a phase of GCIL, at least 1 (the releases' phase_class_upper); None: as
    published, 50.
    """
    pretrain_classes: int | None = dataclasses.field(default=None, metadata=earlier(None))
    """Classes of which GCIL's first phase has all images, at least 1 (the releases' pretrain and
    pretrain_class_nb); None: as published, no such phase.
    """
    schedule_seed: int | None = dataclasses.field(default=None, metadata=earlier(None))
    """Seed of GCIL's phases, in [0, 2**32) (the releases' gil_seed); None: as published, 1993."""
    validation: bool = dataclasses.field(default=False, metadata=earlier(False))
    """Whether a tenth of the training images is held out and tested on, instead of the test set."""
    width: int = 64
    """Filters of ResNet-18's first stage, for colour images, at least 1."""
    hidden: tuple[int, ...] = (100, 100)
    """Widths of the multilayer perceptron, for grey images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "buffer", "width", "batch", "replay", "epochs", "tasks")
        check_positive(self, "phase_size", "phase_classes", "pretrain_classes")
        check_rates(self, "lr")
        check_known("release", self.published, RELEASES)
        if self.settings is None:
            return
        if not isinstance(self.settings, _settings_class(self.method)):
            raise UserError(
                f"settings must be those of the method {self.method}, but are "
                f"{shown(self.settings)}: make them with method_settings({self.method!r}, ...)."
            )
        if self.schedule_seed is not None:
            check_seed(self, "schedule_seed")


class RunState(NamedTuple):
    """State of a method on a stream. The field names are those of checkpoints.

    step: number of batches learned.
    stream_key: data of the key by which the stream shuffles.
    learner: the method's state.
    course: the stream's state.
    accuracy: float [tasks, tests, models, 2], after every task, on every test, of every model,
        class-incremental and task-incremental.
    tested: bool [tasks, tests], which of them have been measured; the others are still to come or
        of no interest.
    """

    step: jax.Array
    stream_key: jax.Array
    learner: TrainState
    course: StreamState
    accuracy: jax.Array
    tested: jax.Array


def make_spec(
    net: Classifier, stream: Stream, *, learning_rate: float, capacity: int, replay: int
) -> ProblemSpec:
    """Return the problem spec of a network on a stream."""
    return ProblemSpec(
        net=net,
        learning_rate=learning_rate,
        capacity=capacity,
        replay=replay,
        tasks=stream.tasks,
        classes=stream.classes,
        task_classes=tuple(map(tuple, stream.task_classes.tolist())),
        image=jax.ShapeDtypeStruct(stream.image, jnp.uint8),
        augment=stream.augment,
        normalise=stream.normalise,
    )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Pure functions of a method on a stream.

    test_batch: images tested at a time.
    """

    spec: ProblemSpec
    method: Method
    stream: Stream
    test_batch: int = 500

    @property
    def method_learner(self) -> Learner:
        """Return the method as a learner."""
        return self.method.learner(self.spec)

    @property
    def models(self) -> list[str]:
        """Return names of the models that are tested."""
        state = jax.eval_shape(partial(self.method.init, self.spec), jax.random.key(0))
        return list(self.method.models(state))

    def init(self, key: jax.Array, data: Any) -> RunState:
        """Return the state before the first step."""
        learner_key, stream_key = jax.random.split(key)
        tests = (self.stream.tasks, len(self.stream.task_classes))
        return RunState(
            jnp.zeros((), jnp.int32),
            jax.random.key_data(stream_key),
            self.method_learner.init((), learner_key),
            self.stream.init(data, stream_key),
            jnp.zeros((*tests, len(self.models), 2), jnp.float32),
            jnp.zeros(tests, bool),
        )

    def step(self, run_state: RunState, data: Any, key: jax.Array) -> tuple[RunState, jax.Array]:
        """Learn one batch of the stream, and finish its task where it ends one.

        Returns:
            The state after it, and the loss.
        """
        stream, step = self.stream, run_state.step
        stream_key = jax.random.wrap_key_data(run_state.stream_key)
        batch_key, augment_key, learn_key, end_key = jax.random.split(key, 4)
        stream_state = stream.shuffle(data, run_state.course, stream_key, step)
        raw = stream.batch(data, stream_state, batch_key, step)
        batch = Batch(stream.augment(raw.images, augment_key), *raw)
        state, loss = self.method_learner.update((), run_state.learner, batch, learn_key)
        ends = step + 1 == jnp.asarray(stream.ends, jnp.int32)[raw.task]
        if self.method.boundaries:
            state = lax.cond(
                ends,
                lambda: self._task_end(state, data, stream_state, raw.task, end_key),
                lambda: state,
            )
        due = self.due(raw.task)
        accuracy = lax.cond(
            ends,
            lambda: run_state.accuracy.at[raw.task].set(self.test(state, data, stream_state, due)),
            lambda: run_state.accuracy,
        )
        tested = run_state.tested.at[raw.task].set(ends & due | run_state.tested[raw.task])
        new = RunState(step + 1, run_state.stream_key, state, stream_state, accuracy, tested)
        return new, loss

    def _task_end(
        self,
        state: TrainState,
        data: Any,
        stream_state: StreamState,
        task: jax.Array,
        key: jax.Array,
    ) -> TrainState:
        assert self.stream.task_images is not None
        images, labels, mask, _ = self.stream.task_images(data, stream_state, task)
        return self.method.at_task_end(self.spec, state, TaskData(images, labels, mask), task, key)

    def due(self, task: jax.Array) -> jax.Array:
        """Return which tests are of interest after a task: bool [tests].

        They are those of the tasks learned; and the next one's for forward transfer, unless it is
        of all classes seen by then.
        """
        number = jnp.arange(len(self.stream.task_classes))
        if self.method.joint:
            return number >= 0
        return number <= task + (0 if self.stream.cumulative else 1)

    def test(
        self, state: TrainState, data: Any, stream_state: StreamState, due: jax.Array
    ) -> jax.Array:
        """Return the accuracy of every model on the tests that are due, 0 on others.

        Returns:
            float [tests, models, 2]: class-incremental, by all outputs; and task-incremental, by
            those of the test's classes.
        """
        classes = jnp.asarray(self.stream.task_classes)
        nothing = jnp.zeros((len(self.method.models(state)), 2), jnp.float32)
        if self.stream.cumulative:
            # The last due test contains the images of all earlier ones.
            last = due.size - 1 - jnp.argmax(due[::-1])
            accuracy = self.accuracies(state, data, stream_state, last, classes)
            return jnp.where(due[:, None, None], accuracy, nothing)

        def of_test(number_and_due: tuple[jax.Array, jax.Array]) -> jax.Array:
            number, due = number_and_due
            return lax.cond(
                due,
                lambda: self.accuracies(state, data, stream_state, number, classes[number][None])[
                    0
                ],
                lambda: nothing,
            )

        return lax.map(of_test, (jnp.arange(due.size), due))

    def accuracies(
        self,
        state: TrainState,
        data: Any,
        stream_state: StreamState,
        number: jax.Array,
        classes: jax.Array,
    ) -> jax.Array:
        """Return the accuracy of every model on parts of a test: [parts, models, 2].

        classes bool [parts, classes]: those of a part's images, and its task-incremental outputs.
        """
        models = self.method.models(state)

        def count(chunk: Test) -> tuple[jax.Array, jax.Array]:
            in_part = chunk.mask * classes[:, chunk.labels]
            right = []
            for model in models.values():
                logits = self.method.classify(self.spec, state, model, chunk.images, number)
                usable = jnp.where(classes[:, None], logits, -jnp.inf)
                for outputs in (logits, usable):
                    right.append((in_part * (outputs.argmax(-1) == chunk.labels)).sum(-1))
            return jnp.stack(right, -1), in_part.sum(-1)

        right, counts = self.over_test(count, data, stream_state, number)
        return (right.sum(0) / counts.sum(0)[:, None]).reshape(-1, len(models), 2)

    def over_test(
        self,
        function: Callable[[Test], Any],
        data: Any,
        stream_state: StreamState,
        number: jax.Array,
    ) -> Any:
        """Return function(chunk) of every chunk of a test, its images normalised; results
        [chunks, ...].
        """
        size = min(self.test_batch, self.stream.test_size)

        def of_chunk(chunk: jax.Array) -> Any:
            test = self.stream.test(data, stream_state, number, chunk * size + jnp.arange(size))
            return function(test._replace(images=self.stream.normalise(test.images)))

        return lax.map(of_chunk, jnp.arange(-(-self.stream.test_size // size)))

    def average(self, run_state: RunState) -> jax.Array:
        """Return the mean accuracy of the reported model over the tests so far: [2].

        It is that after the last task that ended; 0 before the first one ends.
        """
        ended = run_state.tested.any(1).sum()
        row = run_state.accuracy[ended - 1, :, self.models.index(self.method.reported)]
        number = jnp.arange(len(row))
        learned = run_state.tested[ended - 1] & ((number < ended) | self.method.joint)
        mean = (row * learned[:, None]).sum(0) / jnp.maximum(learned.sum(), 1)
        return jnp.where(ended > 0, mean, 0)


def make_system(config: ContinualConfig, experiment: Experiment) -> System:
    """Return an experiment as a system of the training loop; data: the stream's.

    Raises:
        UserError: the method cannot learn the stream.
    """
    check_supported(experiment.method, config.method, experiment.stream)
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), dict(experiment.stream.data)
    )

    def step(run_state: RunState, data: Any, key: jax.Array) -> tuple[RunState, Metrics, Arrays]:
        run_state, loss = experiment.step(run_state, data, key)
        return run_state, {"loss": loss}, {}

    def evaluate(run_state: RunState, data: Any, key: jax.Array) -> Metrics:
        """Return the accuracy that the state remembers of the last task's end, which costs
        nothing.
        """
        average = experiment.average(run_state)
        return {"accuracy": average[CLASS_IL], "task_accuracy": average[TASK_IL]}

    return System(lambda key: experiment.init(key, shapes), step, evaluate)


def untrained_accuracy(experiment: Experiment, keys: jax.Array, data: Any) -> jax.Array:
    """Return the accuracy of networks that learned nothing: [seeds, tests], class-incremental.

    keys [seeds]: those that the runs began with.
    """

    def one(key: jax.Array) -> jax.Array:
        run_state = experiment.init(key, data)
        all_due = jnp.ones(len(experiment.stream.task_classes), bool)
        accuracy = experiment.test(run_state.learner, data, run_state.course, all_due)
        return accuracy[:, 0, CLASS_IL]

    return jax.jit(lambda keys: lax.map(one, keys))(keys)


def reported_model(experiment: Experiment, state: TrainState) -> Variables:
    """Return the model whose accuracy is the method's result."""
    return experiment.method.models(state)[experiment.method.reported]
