"""Progressive neural networks (Rusu et al. 2016): a column per task, fed by those before it."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import UserError
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.methods.base import (
    Batch,
    LossAux,
    Method,
    ProblemSpec,
    TrainState,
    cross_entropy,
)

LARGEST_SCALE = 0.1
"""Largest initial factor of activities taken from older columns."""


@dataclasses.dataclass(frozen=True)
class PNN(Method):
    """h_i^k = relu(W_i^k h_(i-1)^k + U_i^k relu(V_i^k [a_i^k h_(i-1)^(<k)])), for column k.

    Every task trains a column of its own; older ones are frozen. In tests the task's column
    answers, so that it must be told the task, and even class-incremental accuracy is with it known.
    For multilayer perceptrons. params: of all columns, [tasks, ...].
    """

    kinds: ClassVar[tuple[str, ...]] = ("domain", "class")

    def init(self, spec: ProblemSpec, key: jax.Array) -> TrainState:
        """Return the state before the first batch.

        Raises:
            UserError: the network is no multilayer perceptron.
        """
        keys = jax.random.split(key, spec.tasks)
        columns = jax.vmap(lambda key: spec.net.init(key).params)(keys)
        sizes = layer_sizes(columns)
        lateral = jax.vmap(lambda key, task: init_lateral(key, task, sizes, spec.tasks))(
            keys, jnp.arange(spec.tasks)
        )
        state = super().init(spec, key)
        return state._replace(net=Variables({"columns": columns, "lateral": lateral}, {}))

    def gradient(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, LossAux]:
        params, task = state.net.params, batch.task
        hidden = all_hidden(params, batch.images)

        def loss(own: Tree) -> tuple[jax.Array, jax.Array]:
            logits = column_logits(own, hidden, batch.images, task)
            return cross_entropy(logits, batch.labels, batch.mask), logits

        own = jax.tree.map(lambda leaf: leaf[task], params)
        (value, logits), own_gradient = jax.value_and_grad(loss, has_aux=True)(own)
        gradient = jax.tree.map(
            lambda p, g: jnp.zeros_like(p).at[task].set(g), params, own_gradient
        )
        return value, gradient, LossAux(logits, state.net.stats, state.memory)

    def classify(
        self,
        spec: ProblemSpec,
        state: TrainState,
        model: Variables,
        images: jax.Array,
        test: jax.Array | None = None,
    ) -> jax.Array:
        assert test is not None
        own = jax.tree.map(lambda leaf: leaf[test], model.params)
        return column_logits(own, all_hidden(model.params, images), images, test)


def layer_sizes(columns: Tree) -> list[int]:
    """Return the sizes of a perceptron's layers, from the input to the logits.

    Args:
        columns: params of all columns, [tasks, ...].

    Raises:
        UserError: it is no perceptron.
    """
    names = [f"layer_{index}" for index in range(len(columns))]
    if sorted(columns) != sorted(names) or any(columns[n]["kernel"].ndim != 3 for n in names):
        raise UserError(
            "Method pnn has columns for multilayer perceptrons only: choose a stream of grey "
            "images or another method."
        )
    kernels = [columns[name]["kernel"] for name in names]
    return [kernels[0].shape[1], *(kernel.shape[2] for kernel in kernels)]


def init_lateral(key: jax.Array, task: jax.Array, sizes: list[int], tasks: int) -> Tree:
    """Return a column's lateral parameters for layers from the second on: scale a, reduce V,
    expand U.
    """
    lateral = {}
    for index in range(1, len(sizes) - 1):
        size, wider = sizes[index], sizes[index + 1]
        scale_key, reduce_key, expand_key = jax.random.split(jax.random.fold_in(key, index), 3)
        # Glorot's bound for `task` older columns as inputs.
        bound = jnp.sqrt(6 / (size * (jnp.maximum(task, 1) + 1)))
        reduce = jax.random.uniform(reduce_key, (tasks, size, size), minval=-1.0)
        lateral[f"layer_{index}"] = {
            "scale": jax.random.uniform(scale_key, (tasks, size), maxval=LARGEST_SCALE),
            "reduce": bound * reduce,
            "bias": jnp.zeros(size),
            "expand": nn.initializers.glorot_uniform()(expand_key, (size, wider)),
        }
    return lateral


def from_older(lateral: Tree, others: jax.Array, task: jax.Array) -> jax.Array:
    """Return U relu(V [a h]) [N, out]; others [tasks, N, size]: all columns. 0 in the first
    column.
    """
    older = jnp.arange(others.shape[0]) < task
    scale = lateral["scale"] * older[:, None]
    reduced = jnp.einsum("jni,ji,jip->np", others, scale, lateral["reduce"]) + lateral["bias"]
    return jnp.where(task > 0, nn.relu(reduced) @ lateral["expand"], 0)


def _layer(
    own: Tree, index: int, entered: jax.Array, others: jax.Array | None, task: jax.Array
) -> jax.Array:
    """Return a column's layer before its nonlinearity; entered [N, in]; others: of all columns."""
    name = f"layer_{index}"
    x = entered @ own["columns"][name]["kernel"] + own["columns"][name]["bias"]
    return x if others is None else x + from_older(own["lateral"][name], others, task)


def all_hidden(params: Tree, images: jax.Array) -> list[jax.Array]:
    """Return the inputs of every layer from the second on, in all columns: arrays [tasks, N, size].

    Their gradients are 0: older columns are frozen, and younger ones are not used.
    """
    tasks = jnp.arange(params["columns"]["layer_0"]["bias"].shape[0])
    flat = images.reshape(images.shape[0], -1)
    entered = jnp.broadcast_to(flat, (tasks.size, *flat.shape))
    hidden: list[jax.Array] = []
    for index in range(len(params["columns"]) - 1):
        others = hidden[-1] if hidden else None

        def layer(
            own: Tree,
            entered: jax.Array,
            task: jax.Array,
            index: int = index,
            others: jax.Array | None = others,
        ) -> jax.Array:
            return nn.relu(_layer(own, index, entered, others, task))

        entered = jax.vmap(layer)(params, entered, tasks)
        hidden.append(entered)
    return lax.stop_gradient(hidden)


def column_logits(
    own: Tree, hidden: list[jax.Array], images: jax.Array, task: jax.Array
) -> jax.Array:
    """Return logits [N, classes] of a column, whose params are `own`. hidden: as by
    `all_hidden`.
    """
    x = images.reshape(images.shape[0], -1)
    last = len(own["columns"]) - 1
    for index in range(last + 1):
        x = _layer(own, index, x, hidden[index - 1] if index else None, task)
        x = x if index == last else nn.relu(x)
    return x
