"""GSS-Greedy: gradient-based sample selection (Aljundi et al. 2019, algorithm 2)."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from tsar_jax.errors import check_positive
from tsar_jax.networks.classifier import Variables
from tsar_jax.plasticity.buffer import Draw, draw, put
from tsar_jax.plasticity.methods.base import (
    Batch,
    Examples,
    LossAux,
    ProblemSpec,
    TrainState,
    augmented_examples,
    cross_entropy,
    sgd_step,
)
from tsar_jax.plasticity.methods.er import ER

SCORE = "score"
FIRST_SCORE = 0.1
"""Score of items that come while the buffer is empty, as in Mammoth."""
TOGETHER = 16
"""Number of images whose gradients are held at a time, which bounds the memory."""


class Rounds(NamedTuple):
    """State of the draws of a step: order int32 [capacity] of the entries; first: place of the
    next.
    """

    order: jax.Array
    first: jax.Array


@dataclasses.dataclass(frozen=True)
class GSS(ER):
    """ER whose buffer prefers images with gradients unlike those of the items that it holds.

    An image's score is the largest cosine between its gradient and those of some of the buffer,
    plus 1. Once the buffer is full, an image enters it only where the score of its whole batch is
    below 1: it meets an item drawn in proportion to the scores, and takes its place with the
    probability score_of_item / (score_of_item + its own).

    A batch is learned in `batch_num` steps of SGD, each with other items of the buffer until all of
    them have been replayed.
    """

    gss_minibatch_size: int = 10
    """Items of the buffer whose gradients, one by one, are compared with, at least 1."""
    batch_num: int = 1
    """Steps of SGD on every batch of the stream, at least 1, each with a draw from the buffer."""

    def __post_init__(self) -> None:
        check_positive(self, "gss_minibatch_size", "batch_num")

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Rounds:
        return Rounds(jnp.arange(spec.capacity, dtype=jnp.int32), jnp.zeros((), jnp.int32))

    def item_spec(self, spec: ProblemSpec) -> dict[str, jax.ShapeDtypeStruct]:
        return {**super().item_spec(spec), SCORE: jax.ShapeDtypeStruct((), jnp.float32)}

    def update(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        order_key, again_key, last_key = jax.random.split(key, 3)
        order = draw(state.buffer, order_key, spec.capacity).indices

        def again(number: jax.Array, carry: tuple[Variables, Rounds]) -> tuple[Variables, Rounds]:
            net, rounds = carry
            here = state._replace(net=net, memory=rounds)
            round_key = jax.random.fold_in(again_key, number)
            _, gradient, aux = self.gradient(spec, here, batch, round_key)
            params = sgd_step(net.params, gradient, spec.learning_rate)
            return Variables(params, aux.stats), aux.memory

        init = state.net, Rounds(order, jnp.zeros((), jnp.int32))
        net, rounds = lax.fori_loop(1, self.batch_num, again, init)
        return super().update(spec, state._replace(net=net, memory=rounds), batch, last_key)

    def drawn(
        self, spec: ProblemSpec, state: TrainState, key: jax.Array
    ) -> tuple[Examples, Rounds]:
        buffer, (order, first) = state.buffer, state.memory
        count = min(spec.replay, spec.capacity)
        places = first + jnp.arange(count)
        indices = order[places]
        items = {name: values[indices] for name, values in buffer.items.items()}
        mask = (places < buffer.filled).astype(jnp.float32)
        after = jnp.where(first + count < buffer.filled, first + count, 0)
        return augmented_examples(spec, Draw(items, mask, indices), key), Rounds(order, after)

    def store(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, aux: LossAux, key: jax.Array
    ) -> TrainState:
        draw_key, select_key = jax.random.split(key)
        buffer = state.buffer
        of_batch, of_each = self.scores(spec, state, batch, draw_key)
        indices, scores = select(
            select_key, buffer.items[SCORE], buffer.seen, batch.mask, of_batch, of_each
        )
        items = {**self.buffer_items(batch, aux), SCORE: scores}
        seen = buffer.seen + batch.mask.sum().astype(jnp.int32)
        return state._replace(buffer=put(buffer, indices, items, seen))

    def scores(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the score of the batch's mean gradient [], and of every image's own [N].

        The latter are 0 where the former does not ask for them.
        """
        drawn = draw(state.buffer, key, self.gss_minibatch_size)

        def gradient(images: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
            def loss(params: object) -> jax.Array:
                net = Variables(params, state.net.stats)
                return cross_entropy(spec.net.logits(net, images), labels, mask)

            return ravel_pytree(jax.grad(loss)(state.net.params))[0]

        def of_one(image_and_label: tuple[jax.Array, jax.Array]) -> jax.Array:
            image, label = image_and_label
            return gradient(image[None], label[None], jnp.ones(1))

        held = lax.map(
            of_one,
            (spec.normalise(drawn.items["images"]), drawn.items["labels"]),
            batch_size=TOGETHER,
        )

        def score(vector: jax.Array) -> jax.Array:
            return largest_cosine(vector, held, drawn.mask) + 1

        whole = score(gradient(batch.images, batch.labels, batch.mask))
        whole = jnp.where(state.buffer.seen > 0, whole, FIRST_SCORE)
        each = lax.cond(
            (whole < 1) & (state.buffer.seen > 0),
            lambda: lax.map(
                lambda item: score(of_one(item)), (batch.images, batch.labels), batch_size=TOGETHER
            ),
            lambda: jnp.zeros(batch.labels.size),
        )
        return whole, each


def largest_cosine(vector: jax.Array, others: jax.Array, mask: jax.Array) -> jax.Array:
    """Return max over j of g . G_j / (|g| |G_j|); g [P], G [M, P], mask [M]. -1 where there is
    none.
    """
    lengths = jnp.linalg.norm(vector) * jnp.linalg.norm(others, axis=1)
    cosines = (others @ vector) / jnp.maximum(lengths, 1e-8)
    return jnp.where(mask > 0, cosines, -1).max()


def select(
    key: jax.Array,
    scores: jax.Array,
    seen: jax.Array,
    mask: jax.Array,
    of_batch: jax.Array,
    of_each: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return the entries of consecutive images, and their scores: [N], [N].

    Args:
        key: of the draws.
        scores: of the buffer's items, [capacity].
        seen: number of items that came before.
        mask: [N], 1 for images, 0 for padding.
        of_batch: the batch's score, [].
        of_each: each image's own, [N].

    Returns:
        Entries, `capacity` for images that are not stored, and scores.
    """
    capacity = scores.size

    def one(
        carry: tuple[Any, ...], image: tuple[Any, ...]
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        scores, seen = carry
        here, own, chance = image
        total = jnp.cumsum(scores)
        met = jnp.minimum(jnp.searchsorted(total, chance[0] * total[-1]), capacity - 1)
        wins = chance[1] * (scores[met] + own) < scores[met]
        full = seen >= capacity
        index = jnp.where(full, jnp.where((of_batch < 1) & wins, met, capacity), seen)
        index = jnp.where(here > 0, index, capacity).astype(jnp.int32)
        score = jnp.where(full, own, of_batch)
        scores = scores.at[index].set(score, mode="drop")
        return (scores, seen + (here > 0)), (index, score)

    chances = jax.random.uniform(key, (np.size(of_each), 2))
    _, chosen = lax.scan(one, (scores, seen), (mask, of_each, chances))
    return chosen
