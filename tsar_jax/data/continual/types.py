"""Types of continual-learning streams."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

Kind = Literal["domain", "class", "general"]


class StreamState(NamedTuple):
    """State of a stream, drawn once so that a step need not. The field names are those of
    checkpoints.

    maps: int32 [tasks, pixels], for each pixel of a task's images, the original's pixel (one past
        the last: black); empty where a task's images are unchanged.
    order: int32 [largest task], positions of the task's images in this epoch.
    """

    maps: jax.Array
    order: jax.Array


class RawBatch(NamedTuple):
    """A batch: images uint8 [N, H, W, C], not augmented; labels [N]; mask [N]: 1 or 0; task:
    number.
    """

    images: jax.Array
    labels: jax.Array
    mask: jax.Array
    task: jax.Array


class Test(NamedTuple):
    """Test images uint8 [N, H, W, C]; labels [N]; mask [N]: 1 for valid rows, 0 for padding."""

    images: jax.Array
    labels: jax.Array
    mask: jax.Array


class Stream(NamedTuple):
    """Training batches and test images, task after task.

    Static: name; kind: what changes from task to task, the images ("domain"), the classes ("class")
    or nothing that would mark a task's end ("general"); classes; tasks; batch_size: images of a
    batch; image: [H, W, C]; begins int [tasks]: first step of each task; ends int [tasks]: the one
    after its last; task_classes bool [tests, classes]; cumulative: test i is that of all classes
    seen after task i, and of interest only then; test_size: images of the largest test.

    data: arrays, to be put on the device. The functions are pure:
    init: (data, key) -> StreamState
    shuffle: (data, StreamState, key, step) -> StreamState, with a new order if an epoch begins at
    `step`
    batch: (data, StreamState, key, step) -> RawBatch
    test: (data, StreamState, test number, rows [N]) -> Test
    task_images: (data, StreamState, task) -> RawBatch of all images of a task; None: there are no
    tasks
    augment: (images uint8, key) -> float, augmented and normalised, as for training
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
        """Return the steps from the first task's beginning to the last one's end."""
        return int(self.ends[-1])
