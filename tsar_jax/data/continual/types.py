"""What a continual-learning stream is."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

Kind = Literal["domain", "class", "general"]


class StreamState(NamedTuple):
    """What a lifetime's key decides about the stream, so that a step need not.

    maps int32 [tasks, pixels]: of each pixel of a task's images, which one of the original it is
    (one past the last: black); empty where a task's images are as they are. order int32 [largest
    task]: places of the task's images in this epoch.
    """

    maps: jax.Array
    order: jax.Array


class RawBatch(NamedTuple):
    """images uint8 [N, H, W, C], not augmented; labels [N]; present [N]: 1 or 0; task: number."""

    images: jax.Array
    labels: jax.Array
    mask: jax.Array
    task: jax.Array


class Test(NamedTuple):
    """images uint8 [N, H, W, C]; labels [N]; present [N]: 1, or 0 for what only fills up."""

    images: jax.Array
    labels: jax.Array
    mask: jax.Array


class Stream(NamedTuple):
    """Training batches and test images, task after task.

    Static: name; kind: what changes from task to task, the images ("domain"), the classes ("class")
    or nothing that a task's end would mark ("general"); classes; tasks; batch_size: images of a
    batch; image: [H, W, C]; begins int [tasks]: first step of each task; ends int [tasks]: the one
    after its last; task_classes bool [tests, classes]; cumulative: test i is that of all classes
    seen after task i, and of interest only then; test_size: images of the largest test.

    data: arrays, to be put on the device. The functions are pure:
    begin: (data, key) -> Course
    shuffle: (data, Course, key, step) -> Course, with a new order where an epoch begins at `step`
    batch: (data, Course, key, step) -> RawBatch
    test: (data, Course, test number, rows [N]) -> Test
    task_images: (data, Course, task) -> RawBatch of all images of a task; None: there are no tasks
    view: (images uint8, key) -> float, augmented and normalised, as for training
    normalise: (images uint8) -> float, as for testing
    """

    name: str
    kind: Kind
    classes: int
    tasks: int
    batch_size: int
    image: tuple[int, int, int]
    begins: np.ndarray
    ends: np.ndarray
    task_classes: np.ndarray
    cumulative: bool
    test_size: int
    data: dict[str, Any]
    init: Callable[..., StreamState]
    shuffle: Callable[..., StreamState]
    batch: Callable[..., RawBatch]
    test: Callable[..., Test]
    task_images: Callable[..., RawBatch] | None
    augment: Callable[[jax.Array, jax.Array], jax.Array]
    normalise: Callable[[jax.Array], jax.Array]

    @property
    def steps(self) -> int:
        """Steps from the first task's beginning to the last one's end."""
        return int(self.ends[-1])
