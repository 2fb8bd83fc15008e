"""MER: meta-experience replay (Riemer et al. 2019): Reptile within and across batches of memory."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import check_positive, check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.methods.base import (
    Batch,
    Examples,
    LossAux,
    Method,
    ProblemSpec,
    TrainState,
    as_examples,
    concat_examples,
    examples_loss,
    replay,
    sgd_step,
)


@dataclasses.dataclass(frozen=True)
class MER(Method):
    """theta_A + gamma * (theta_s - theta_A), where theta_A is W before and theta_s after s batches.

    A batch is a draw, then the stream's item; SGD takes `item_num` of its items at a step, and it
    ends at theta_0 + beta * (theta_k - theta_0). One item at a step is the paper's algorithm 1; all
    of them at once is what Mammoth does. Meant for streams in batches of one item.
    """

    buffered: ClassVar[bool] = True
    beta: float = 1.0
    """Fraction of its step that a batch takes, at least 0."""
    gamma: float = 1.0
    """Fraction of their step that all batches take, at least 0."""
    batch_num: int = 1
    """Number s of batches, at least 1."""
    item_num: int = 1
    """Items of a step of SGD; 0: the whole batch."""

    def __post_init__(self) -> None:
        check_weights(self, "beta", "gamma", "item_num")
        check_positive(self, "batch_num")

    def gradient(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, LossAux]:
        initial = state.net

        def one_batch(net: Variables, key: jax.Array) -> tuple[Variables, jax.Array]:
            items = concat_examples(replay(spec, state.buffer, key), as_examples(batch))
            after, losses = descend_items(spec, net, items, self.item_num)
            return Variables(towards(net.params, after.params, self.beta), after.stats), losses[-1]

        after, losses = lax.scan(one_batch, initial, jax.random.split(key, self.batch_num))
        params = towards(initial.params, after.params, self.gamma)
        # The gradient whose SGD step leads to these parameters.
        gradient = jax.tree.map(lambda a, b: (a - b) / spec.learning_rate, initial.params, params)
        logits = spec.net.logits(initial, batch.images)
        return losses[-1], gradient, LossAux(logits, after.stats, state.memory)


def descend_items(
    spec: ProblemSpec, net: Variables, items: Examples, size: int
) -> tuple[Variables, jax.Array]:
    """Run SGD over items [N], `size` of them at a step, 0 being all; return the net and the
    losses.
    """
    count = items.labels.shape[0]
    size = min(size, count) or count
    steps = -(-count // size)

    def step(net: Variables, number: jax.Array) -> tuple[Variables, jax.Array]:
        # Steps are aligned with the last item, so that the first one may have fewer items.
        rows = count - (steps - number) * size + jnp.arange(size)
        mask = items.mask[rows] * (rows >= 0)
        part = Examples(items.images[rows], items.labels[rows], mask, {})
        (loss, stats), gradient = jax.value_and_grad(
            lambda params: examples_loss(spec, Variables(params, net.stats), part), has_aux=True
        )(net.params)
        return Variables(sgd_step(net.params, gradient, spec.learning_rate), stats), loss

    return lax.scan(step, net, jnp.arange(steps))


def towards(initial: Tree, end: Tree, fraction: float) -> Tree:
    """Return initial + fraction * (end - initial): Reptile (Nichol et al. 2018)."""
    return jax.tree.map(lambda a, b: a + fraction * (b - a), initial, end)
