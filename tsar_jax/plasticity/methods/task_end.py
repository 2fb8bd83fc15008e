"""Passes over a task's images at its end, in memory that does not grow with the task."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import UserError
from tsar_jax.plasticity.buffer import put
from tsar_jax.plasticity.methods.base import Method, ProblemSpec, TaskData, TrainState

CHUNK = 500
"""Images of a task that are processed together."""


def map_chunks(function: Callable[[TaskData], Any], data: TaskData) -> Any:
    """Return function(chunk) of every chunk of a task, one after another; results [chunks, ...].

    Padding of the last chunk has a mask of 0.
    """
    return lax.map(lambda number: function(_chunk(data, number)), _numbers(data))


def sum_chunks(
    function: Callable[[TaskData, jax.Array], Any], data: TaskData, key: jax.Array
) -> Any:
    """Return the sum of a tree that is a function of every chunk of a task and a key of its own."""
    shapes = jax.eval_shape(function, jax.eval_shape(_chunk, data, jnp.int32(0)), key)
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total: Any, number: jax.Array) -> tuple[Any, None]:
        value = function(_chunk(data, number), jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, value), None

    return lax.scan(add, zero, _numbers(data))[0]


def _numbers(data: TaskData) -> jax.Array:
    count = data.labels.shape[0]
    return jnp.arange(-(-count // min(CHUNK, count)))


def _chunk(data: TaskData, number: jax.Array) -> TaskData:
    count = data.labels.shape[0]
    size = min(CHUNK, count)
    rows = number * size + jnp.arange(size)
    within = (rows < count).astype(data.mask.dtype)
    rows = jnp.minimum(rows, count - 1)
    return TaskData(data.stored[rows], data.labels[rows], data.mask[rows] * within)


def choose(data: TaskData, key: jax.Array, count: int) -> TaskData:
    """Return `count` images of a task at random; where it has fewer they repeat."""
    available = data.labels.shape[0]
    chance = jax.random.uniform(key, (available,))
    _, order = lax.top_k(jnp.where(data.mask > 0, chance, -1.0), min(count, available))
    different = jnp.minimum(data.mask.sum().astype(jnp.int32), order.size)
    rows = order[jnp.arange(count) % different]
    return TaskData(data.stored[rows], data.labels[rows], data.mask[rows])


def buffer_range(spec: ProblemSpec, task: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the first entry of a task's part of the buffer, and the one after its last, both int
    [].

    All parts are alike.

    Raises:
        UserError: there are fewer entries than tasks.
    """
    if spec.capacity < spec.tasks:
        raise UserError(
            f"buffer is {spec.capacity}, but {spec.tasks} tasks have to share it: raise it."
        )
    return task * spec.capacity // spec.tasks, (task + 1) * spec.capacity // spec.tasks


def buffer_indices(spec: ProblemSpec, task: jax.Array) -> jax.Array:
    """Return the entries of a task's part: int32 [largest part], `capacity` after its last."""
    first, after = buffer_range(spec, task)
    indices = first + jnp.arange(-(-spec.capacity // spec.tasks))
    return jnp.where(indices < after, indices, spec.capacity)


def present_classes(data: TaskData, classes: int) -> jax.Array:
    """Return which classes a task has images of: bool [classes]."""
    return jnp.zeros(classes).at[data.labels].add(data.mask) > 0


def classes_of(data: TaskData, classes: int, max_count: int) -> tuple[jax.Array, jax.Array]:
    """Return the classes of a task, lowest first: numbers [max_count], and which are valid
    [max_count].
    """
    here, numbers = lax.top_k(present_classes(data, classes).astype(jnp.float32), max_count)
    return numbers, here > 0


def seen_classes(spec: ProblemSpec, task: jax.Array) -> jax.Array:
    """Return which classes there were up to a task, itself included: bool [classes]; none before
    0.
    """
    rows = jnp.arange(len(spec.task_classes)) <= task
    return (jnp.asarray(spec.task_classes) & rows[:, None]).any(0)


def most_classes(spec: ProblemSpec) -> int:
    """Return the number of classes of the task that has most."""
    return max(map(sum, spec.task_classes))


@dataclasses.dataclass(frozen=True)
class FilledAtEnds(Method):
    """A base for methods whose buffer is filled at the tasks' ends, every task having its part."""

    buffered: ClassVar[bool] = True
    filled_at_ends: ClassVar[bool] = True
    boundaries: ClassVar[bool] = True

    def at_task_end(
        self, spec: ProblemSpec, state: TrainState, data: TaskData, task: jax.Array, key: jax.Array
    ) -> TrainState:
        choose_key, items_key = jax.random.split(key)
        indices = buffer_indices(spec, task)
        chosen = choose(data, choose_key, indices.size)
        items = self.items(spec, state, chosen, items_key)
        _, after = buffer_range(spec, task)
        return state._replace(buffer=put(state.buffer, indices, items, after.astype(jnp.int32)))

    def items(
        self, spec: ProblemSpec, state: TrainState, chosen: TaskData, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Return the items to store of the images chosen, as in `item_spec`."""
        return {"images": chosen.stored, "labels": chosen.labels}
