"""MNIST-360 (Buzzega et al. 2020): rotating digits that come and go, without task boundaries.

Digits 0 to 8 come in pairs (0, 1), (1, 2) ... (8, 0), three rounds of them. A digit's training
images are cut into six chunks, one for each time that it comes. In that time its images are
drawn from the chunk at random, and rotate by 360/n degrees from one to the next, n being the
number of the digit's images.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.data.continual.epochs import images_nhwc
from tsar_jax.data.continual.normalise import scale
from tsar_jax.data.continual.pixels import move_pixels, rotation_map
from tsar_jax.data.continual.types import RawBatch, Stream, StreamState, Test
from tsar_jax.data.types import LabelledDataset

Data = dict[str, Any]
DIGITS, ROUNDS, OUTPUTS = 9, 3, 10
VISITS = 2 * ROUNDS
FIRST_ANGLE = 60  # degrees between the first images of neighbouring digits
ITEMS = ("item_digit", "item_drawn")


class Schedule(NamedTuple):
    """For every step, and both digits of its pair: arrays int32 [steps, 2].

    digits; counts: images of each in the batch; first: the chunk's first image, among the digit's
    own;
    size: of the chunk; drawn: images of the digit drawn before this step.
    """

    digits: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    size: np.ndarray
    drawn: np.ndarray


def make_schedule(sizes: np.ndarray, batch: int) -> Schedule:
    """Return the schedule of every step. sizes [9]: training images of each digit.

    A batch mixes its two digits in proportion to the rest of their chunks, and a pair ends when one
    of them is used up.
    """
    rows: list[tuple[list[int], ...]] = []
    visits, drawn = [0] * DIGITS, [0] * DIGITS
    for pair in [(digit, (digit + 1) % DIGITS) for _ in range(ROUNDS) for digit in range(DIGITS)]:
        chunks = [int(sizes[digit]) // VISITS + 1 for digit in pair]
        first = [visits[digit] * chunk for digit, chunk in zip(pair, chunks, strict=True)]
        size = [
            min(chunk, int(sizes[digit]) - start)
            for digit, chunk, start in zip(pair, chunks, first, strict=True)
        ]
        remaining = list(size)
        while min(remaining) > 0:
            first_count = min(round(remaining[0] / sum(remaining) * batch), remaining[0])
            counts = [first_count, min(batch - first_count, remaining[1])]
            rows.append((list(pair), counts, first, size, [drawn[digit] for digit in pair]))
            for place, digit in enumerate(pair):
                remaining[place] -= counts[place]
                drawn[digit] += counts[place]
        for digit in pair:
            visits[digit] += 1
    return Schedule(*(np.array(column, np.int32) for column in zip(*rows, strict=True)))


def digits_360(dataset: LabelledDataset, name: str, batch: int, joint: bool = False) -> Stream:
    """Return the stream; its only test: all test images, each digit's rotated from 0 to 360
    degrees.

    joint: as many images of every digit at the same angles, but in random order.
    """
    images, test_images = images_nhwc(dataset.train.images), images_nhwc(dataset.test.images)
    by_digit = [np.flatnonzero(dataset.train.labels == digit) for digit in range(DIGITS)]
    test_by_digit = [np.flatnonzero(dataset.test.labels == digit) for digit in range(DIGITS)]
    sizes = np.array([len(indices) for indices in by_digit])
    schedule = make_schedule(sizes, batch)
    items = _items(schedule)
    steps = -(-len(items[0]) // batch) if joint else len(schedule.digits)
    test_order = np.concatenate(test_by_digit)
    angles = [360 / len(indices) * np.arange(len(indices)) for indices in test_by_digit]
    data = {
        "images": images[np.concatenate(by_digit)],
        "first_image": (np.cumsum(sizes) - sizes).astype(np.int32),
        "turn": (360 / sizes).astype(np.float32),
        "sizes": sizes.astype(np.int32),
        **(dict(zip(ITEMS, items, strict=True)) if joint else schedule._asdict()),
        "test_images": test_images[test_order],
        "test_labels": dataset.test.labels[test_order].astype(np.int32),
        "test_angles": np.concatenate(angles).astype(np.float32),
    }
    return Stream(
        name=name,
        kind="general",
        classes=OUTPUTS,
        tasks=1,
        batch_size=batch,
        image=images.shape[1:],
        begins=np.array([0]),
        ends=np.array([steps]),
        task_classes=np.ones((1, OUTPUTS), bool),
        cumulative=False,
        test_size=len(test_order),
        data=data,
        init=_init_joint if joint else _init,
        shuffle=lambda data, stream_state, key, step: stream_state,
        batch=lambda data, stream_state, key, step: (
            _joint_batch(data, stream_state, key, step, batch)
            if joint
            else _batch(data, key, step, batch)
        ),
        test=lambda data, stream_state, number, rows: _test(data, rows),
        task_images=None,
        augment=lambda images, key: scale(images),
        normalise=scale,
    )


def _items(schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Return for every image of the stream its digit, and how many of that digit came before."""
    counts = schedule.counts.reshape(-1)
    digit = np.repeat(schedule.digits.reshape(-1), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    drawn = np.repeat(schedule.drawn.reshape(-1), counts) + within
    return digit.astype(np.int32), drawn.astype(np.int32)


def _init(data: Data, key: jax.Array) -> StreamState:
    return StreamState(jnp.zeros((0, 0), jnp.int32), jnp.zeros(0, jnp.int32))


def _init_joint(data: Data, key: jax.Array) -> StreamState:
    order = jax.random.permutation(key, data[ITEMS[0]].shape[0]).astype(jnp.int32)
    return StreamState(jnp.zeros((0, 0), jnp.int32), order)


def _joint_batch(
    data: Data, stream_state: StreamState, key: jax.Array, step: jax.Array, size: int
) -> RawBatch:
    row = step * size + jnp.arange(size)
    item = stream_state.order[row]
    digit, drawn = (data[name][item] for name in ITEMS)
    place = jax.random.randint(key, (size,), 0, data["sizes"][digit])
    degrees = (digit - 1) * FIRST_ANGLE + data["turn"][digit] * drawn
    images = _turned(data["images"][data["first_image"][digit] + place], degrees)
    mask = (row < stream_state.order.size).astype(jnp.float32)
    return RawBatch(images, digit, mask, jnp.zeros((), jnp.int32))


def _batch(data: Data, key: jax.Array, step: jax.Array, size: int) -> RawBatch:
    row = jnp.arange(size)
    counts = data["counts"][step]
    second = (row >= counts[0]).astype(jnp.int32)

    def of_row(name: str) -> jax.Array:
        """Return an entry of the schedule for the digit in a row of the batch."""
        return data[name][step][second]

    digit = of_row("digits")
    place = of_row("first") + jax.random.randint(key, (size,), 0, of_row("size"))
    drawn = of_row("drawn") + row - second * counts[0]
    degrees = (digit - 1) * FIRST_ANGLE + data["turn"][digit] * drawn
    images = _turned(data["images"][data["first_image"][digit] + place], degrees)
    mask = (row < counts.sum()).astype(jnp.float32)
    return RawBatch(images, digit, mask, jnp.zeros((), jnp.int32))


def _test(data: Data, rows: jax.Array) -> Test:
    images = _turned(data["test_images"][rows], data["test_angles"][rows])
    mask = (rows < data["test_labels"].size).astype(jnp.float32)
    return Test(images, data["test_labels"][rows], mask)


def _turned(images: jax.Array, degrees: jax.Array) -> jax.Array:
    maps = jax.vmap(lambda angle: rotation_map(angle, images.shape[1]))(degrees)
    return move_pixels(images, maps)
