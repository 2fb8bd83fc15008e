"""MER: meta-experience replay (Riemer et al. 2019): Reptile within and across batches of memory."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import check_positive, check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.systems.continual.methods.base import (
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
    """Share of the way that a batch goes."""
    gamma: float = 1.0
    """Share of the way that all batches go."""
    batch_num: int = 1
    """s, number of batches."""
    item_num: int = 1
    """Items of a step of SGD; 0: the whole batch."""

    def __post_init__(self) -> None:
        check_weights(self, "beta", "gamma", "item_num")
        check_positive(self, "batch_num")

    def gradient(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, LossAux]:
        begin = state.net

        def one_batch(net: Variables, key: jax.Array) -> tuple[Variables, jax.Array]:
            items = concat_examples(replay(spec, state.buffer, key), as_examples(batch))
            after, losses = descend_items(spec, net, items, self.item_num)
            return Variables(towards(net.params, after.params, self.beta), after.stats), losses[-1]

        after, losses = lax.scan(one_batch, begin, jax.random.split(key, self.batch_num))
        params = towards(begin.params, after.params, self.gamma)
        # The step of SGD that goes there.
        gradient = jax.tree.map(lambda a, b: (a - b) / spec.rate, begin.params, params)
        logits = spec.net.logits(begin, batch.images)
        return losses[-1], gradient, LossAux(logits, after.stats, state.memory)


def descend_items(
    spec: ProblemSpec, net: Variables, items: Examples, size: int
) -> tuple[Variables, jax.Array]:
    """SGD over items [N], `size` of them at a step, 0 being all; the net, and the steps' losses."""
    count = items.labels.shape[0]
    size = min(size, count) or count
    steps = -(-count // size)

    def step(net: Variables, number: jax.Array) -> tuple[Variables, jax.Array]:
        # The last step ends at the last item; the first one may have fewer than the others.
        rows = count - (steps - number) * size + jnp.arange(size)
        mask = items.mask[rows] * (rows >= 0)
        part = Examples(items.images[rows], items.labels[rows], mask, {})
        (loss, stats), gradient = jax.value_and_grad(
            lambda params: examples_loss(spec, Variables(params, net.stats), part), has_aux=True
        )(net.params)
        return Variables(sgd_step(net.params, gradient, spec.rate), stats), loss

    return lax.scan(step, net, jnp.arange(steps))


def towards(begin: Tree, end: Tree, share: float) -> Tree:
    """begin + share * (end - begin): Reptile (Nichol et al. 2018)."""
    return jax.tree.map(lambda a, b: a + share * (b - a), begin, end)
