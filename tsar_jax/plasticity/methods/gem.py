"""GEM: gradient episodic memory (Lopez-Paz, Ranzato 2017)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from tsar_jax.errors import check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.methods.base import (
    Batch,
    Examples,
    LossAux,
    ProblemSpec,
    TrainState,
    examples_gradient,
)
from tsar_jax.plasticity.methods.task_end import FilledAtEnds, buffer_indices
from tsar_jax.plasticity.projections import project_into_cone


@dataclasses.dataclass(frozen=True)
class GEM(FilledAtEnds):
    """Descent along the vector nearest to the gradient g of CE(W(batch)) that harms no past task.

    Harm to a past task is measured by the gradient on its part of the buffer.
    """

    kinds: ClassVar[tuple[str, ...]] = ("domain", "class", "cumulative")
    gamma: float = 0.5
    """Margin, at least 0: the least weight of a past task's gradient where there is a conflict."""

    def __post_init__(self) -> None:
        check_weights(self, "gamma")

    def gradient(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, LossAux]:
        past_key, batch_key = jax.random.split(key)
        past, stats = self.past_gradients(spec, state, batch.task, past_key)
        state = state._replace(net=state.net._replace(stats=stats))
        loss, gradient, aux = super().gradient(spec, state, batch, batch_key)
        vector, as_tree = ravel_pytree(gradient)
        return loss, as_tree(project_into_cone(vector, past, margin=self.gamma)), aux

    def past_gradients(
        self, spec: ProblemSpec, state: TrainState, task: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        """Return gradients on every task's part [tasks, P], zeros from `task` on; and the
        statistics.
        """

        def one(stats: Tree, number: jax.Array) -> tuple[Tree, jax.Array]:
            def learned() -> tuple[Tree, jax.Array]:
                indices = buffer_indices(spec, number)
                items = {name: item[indices] for name, item in state.buffer.items.items()}
                images = spec.augment(items["images"], jax.random.fold_in(key, number))
                mask = (indices < spec.capacity).astype(images.dtype)
                part = Examples(images, items["labels"], mask, {})
                net = Variables(state.net.params, stats)
                gradient, after = examples_gradient(spec, net, part)
                return after, ravel_pytree(gradient)[0]

            nothing = jnp.zeros_like(ravel_pytree(state.net.params)[0])
            return lax.cond(number < task, learned, lambda: (stats, nothing))

        stats, past = lax.scan(one, state.net.stats, jnp.arange(spec.tasks))
        return past, stats
