"""GEM: gradient episodic memory (Lopez-Paz, Ranzato 2017)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from tsar_jax.errors import check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.projections import project_into_cone
from tsar_jax.systems.continual.methods.base import (
    Batch,
    Examples,
    LossAux,
    ProblemSpec,
    TrainState,
    examples_gradient,
)
from tsar_jax.systems.continual.methods.task_end import FilledAtEnds, share_slots


@dataclasses.dataclass(frozen=True)
class GEM(FilledAtEnds):
    """Descends the vector nearest to g of CE(W(batch)) that harms no past task.

    What harms a task is told by the gradient on its share of the buffer.
    """

    kinds: ClassVar[tuple[str, ...]] = ("domain", "class", "cumulative")
    gamma: float = 0.5
    """Margin: the least weight of a past task's gradient where there is a conflict."""

    def __post_init__(self) -> None:
        check_weights(self, "gamma")

    def gradient(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Tree, LossAux]:
        past_key, batch_key = jax.random.split(key)
        past, stats = self.past_gradients(spec, state, batch.task, past_key)
        state = state._replace(net=state.net._replace(stats=stats))
        loss, gradient, passed = super().gradient(spec, state, batch, batch_key)
        vector, as_tree = ravel_pytree(gradient)
        return loss, as_tree(project_into_cone(vector, past, self.gamma)), passed

    def past_gradients(
        self, spec: ProblemSpec, state: TrainState, task: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        """Gradients on every task's share [tasks, P], zeros from `task` on; and the statistics."""

        def one(stats: Tree, number: jax.Array) -> tuple[Tree, jax.Array]:
            def learned() -> tuple[Tree, jax.Array]:
                indices = share_slots(spec, number)
                items = {name: item[indices] for name, item in state.buffer.items.items()}
                images = spec.view(items["images"], jax.random.fold_in(key, number))
                mask = (indices < spec.capacity).astype(images.dtype)
                part = Examples(images, items["labels"], mask, {})
                net = Variables(state.net.params, stats)
                gradient, after = examples_gradient(spec, net, part)
                return after, ravel_pytree(gradient)[0]

            nothing = jnp.zeros_like(ravel_pytree(state.net.params)[0])
            return lax.cond(number < task, learned, lambda: (stats, nothing))

        stats, past = lax.scan(one, state.net.stats, jnp.arange(spec.tasks))
        return past, stats
