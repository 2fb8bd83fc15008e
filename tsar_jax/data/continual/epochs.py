"""Streams that go over the images of one task after another, in epochs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.data.continual.normalise import make_normalise
from tsar_jax.data.continual.pixels import crop_and_flip, move_pixels
from tsar_jax.data.continual.types import Kind, RawBatch, Stream, StreamState, Test
from tsar_jax.data.normalise import Statistics
from tsar_jax.data.types import LabelledDataset
from tsar_jax.errors import UserError

Data = dict[str, Any]
MakeMaps = Callable[[jax.Array, int, int], jax.Array]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Description of an epoch stream.

    members: for each task, indices of its training images.
    tests: for each test, indices of its test images.
    task_classes: bool [tests, classes].
    epochs: passes over every task, in batches of `batch`.
    drop_last: leave out images that do not fill a batch.
    statistics: for the normalisation of colour images.
    joint: all tasks as one.
    make_maps: (key, tasks, side) -> maps of pixels, for streams whose images change.
    Other fields are those of `Stream`.
    """

    name: str
    kind: Kind
    members: Sequence[np.ndarray]
    tests: Sequence[np.ndarray]
    task_classes: np.ndarray
    epochs: int
    batch: int
    drop_last: bool
    statistics: Statistics
    joint: bool = False
    cumulative: bool = False
    make_maps: MakeMaps | None = None


def images_nhwc(images: np.ndarray) -> np.ndarray:
    """Return images uint8 [N, H, W], grey, or [N, H, W, 3] as [N, H, W, C]."""
    return images[..., None] if images.ndim == 3 else images


def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return rows of different lengths, padded by zeros: int32 [rows, longest]."""
    table = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for padded_row, row in zip(table, rows, strict=True):
        padded_row[: len(row)] = row
    return table


def epoch_stream(plan: Plan, dataset: LabelledDataset) -> Stream:
    """Return the stream of a plan.

    Raises:
        UserError: a task cannot fill a batch.
    """
    images, test_images = images_nhwc(dataset.train.images), images_nhwc(dataset.test.images)
    count = len(images)
    # A member encodes the task and the image: task * count + image.
    members = [task * count + rows for task, rows in enumerate(plan.members)]
    if plan.joint:
        members = [np.concatenate(members)]
    lengths = [_steps(plan, task, len(rows)) for task, rows in enumerate(members)]
    ends = np.cumsum([plan.epochs * length for length in lengths])
    data = {
        "images": images,
        "labels": dataset.train.labels.astype(np.int32),
        "test_images": test_images,
        "test_labels": dataset.test.labels.astype(np.int32),
        "members": padded(members),
        "sizes": np.array([len(rows) for rows in members], np.int32),
        "test_members": padded(plan.tests),
        "test_sizes": np.array([len(rows) for rows in plan.tests], np.int32),
        "task": np.repeat(np.arange(len(members)), np.diff(ends, prepend=0)).astype(np.int32),
        "place": np.concatenate([np.tile(np.arange(n), plan.epochs) for n in lengths]).astype(
            np.int32
        ),
    }
    side, channels = images.shape[1], images.shape[3]
    normalise = make_normalise(plan.statistics, channels)
    parts = _Parts(plan, count, side)

    def augment(images: jax.Array, key: jax.Array) -> jax.Array:
        return normalise(crop_and_flip(images, key) if channels == 3 else images)

    return Stream(
        name=plan.name,
        kind=plan.kind,
        classes=plan.task_classes.shape[1],
        tasks=len(members),
        batch_size=plan.batch,
        image=images.shape[1:],
        begins=np.concatenate([[0], ends[:-1]]),
        ends=ends,
        task_classes=plan.task_classes,
        cumulative=plan.cumulative,
        test_size=data["test_members"].shape[1],
        data=data,
        init=parts.init,
        shuffle=parts.shuffle,
        batch=parts.batch,
        test=parts.test,
        task_images=parts.task_images,
        augment=augment,
        normalise=normalise,
    )


def _steps(plan: Plan, task: int, images: int) -> int:
    """Return the batches of an epoch."""
    steps = images // plan.batch if plan.drop_last else -(-images // plan.batch)
    if not steps:
        raise UserError(
            f"Task {task} of {plan.name} has {images} images, fewer than a batch of {plan.batch}: "
            "lower batch."
        )
    return steps


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Functions of an epoch stream; count: number of the training images."""

    plan: Plan
    count: int
    side: int

    def init(self, data: Data, key: jax.Array) -> StreamState:
        maps = jnp.zeros((0, 0), jnp.int32)
        if self.plan.make_maps is not None:
            maps = self.plan.make_maps(key, len(self.plan.tests), self.side)
        return StreamState(maps, jnp.zeros(data["members"].shape[1], jnp.int32))

    def shuffle(
        self, data: Data, stream_state: StreamState, key: jax.Array, step: jax.Array
    ) -> StreamState:
        def anew() -> jax.Array:
            epoch_key = jax.random.fold_in(key, step)
            bits = jax.random.bits(epoch_key, stream_state.order.shape, jnp.uint32) >> 1
            last = jnp.arange(stream_state.order.size) >= data["sizes"][data["task"][step]]
            order = jnp.argsort(jnp.where(last, np.uint32(2**32 - 1), bits))
            return order.astype(jnp.int32)

        begins = data["place"][step] == 0
        return stream_state._replace(order=lax.cond(begins, anew, lambda: stream_state.order))

    def batch(
        self, data: Data, stream_state: StreamState, key: jax.Array, step: jax.Array
    ) -> RawBatch:
        task = data["task"][step]
        rows = data["place"][step] * self.plan.batch + jnp.arange(self.plan.batch)
        mask = rows < data["sizes"][task]
        return self._gather(data, stream_state, task, stream_state.order[rows], mask)

    def task_images(self, data: Data, stream_state: StreamState, task: jax.Array) -> RawBatch:
        rows = jnp.arange(data["members"].shape[1])
        return self._gather(data, stream_state, task, rows, rows < data["sizes"][task])

    def _gather(
        self,
        data: Data,
        stream_state: StreamState,
        task: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
    ) -> RawBatch:
        """Return a task's images at some positions of its members."""
        member = data["members"][task, positions]
        index = member % self.count
        images = data["images"][index]
        if self.plan.make_maps is not None:
            origin = member // self.count if self.plan.joint else task
            images = move_pixels(images, stream_state.maps[origin])
        return RawBatch(images, data["labels"][index], mask.astype(jnp.float32), task)

    def test(
        self, data: Data, stream_state: StreamState, number: jax.Array, rows: jax.Array
    ) -> Test:
        index = data["test_members"][number, rows]
        images = data["test_images"][index]
        if self.plan.make_maps is not None:
            images = move_pixels(images, stream_state.maps[number])
        mask = (rows < data["test_sizes"][number]).astype(jnp.float32)
        return Test(images, data["test_labels"][index], mask)
