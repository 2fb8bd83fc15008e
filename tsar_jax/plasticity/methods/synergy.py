"""SYNERgy (Sarfraz, Arani, Zonooz 2022): replay, semantic memory and Fisher consolidation."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import check_frequencies, check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.averages import average, bernoulli, effective_alpha
from tsar_jax.plasticity.fisher import filter_means, weighted_distance
from tsar_jax.plasticity.methods.base import (
    Batch,
    LossAux,
    Method,
    ProblemSpec,
    TrainState,
    consistency_loss,
    replay,
)


class Memory(NamedTuple):
    """semantic: S, an average of the working model. fisher: F, importance of its parameters.

    estimated: whether F was ever estimated, bool [].
    """

    semantic: Variables
    fisher: Tree
    estimated: jax.Array


@dataclasses.dataclass(frozen=True)
class SYNERgy(Method):
    """L = reg_weight MSE(W(b), S(b)) + CE(W(batch and b)) + penalty_weight sum F_adj (W - S)^2.

    S follows W as a moving average. F is estimated under S over all entries of the buffer,
    processed as in training (augmented, normalised), and averaged too; entries never filled count
    as black images of class 0, as in the release. In F_adj every convolution filter has its mean.
    S's batch-norm statistics are those of its own passes, F's included.
    """

    buffered: ClassVar[bool] = True
    reported: ClassVar[str] = "semantic"
    reg_weight: float = 1.0
    """Weight of the consistency loss, at least 0."""
    ema_update_freq: float = 1.0
    """Probability that a step updates S, 0 to 1."""
    ema_alpha: float = 0.99
    """Decay of S, 0 to 1."""
    penalty_weight: float = 1.0
    """Weight of the distance between W and S, at least 0."""
    fisher_alpha: float = 0.99
    """Decay of F, 0 to 1."""
    fisher_update_freq: float = 0.8
    """Probability that a step updates F, 0 to 1."""

    def __post_init__(self) -> None:
        check_weights(self, "reg_weight", "penalty_weight")
        check_frequencies(self, "ema_update_freq", "fisher_update_freq")
        check_frequencies(self, "ema_alpha", "fisher_alpha")

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Memory:
        return Memory(net, jax.tree.map(jnp.zeros_like, net.params), jnp.zeros((), bool))

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        drawn = replay(spec, state.buffer, key)
        memory = state.memory
        target, semantic_stats = spec.net.train(memory.semantic, drawn.images, drawn.mask)
        net = state.net
        loss, logits, stats = consistency_loss(spec, net, batch, drawn, target, self.reg_weight)
        loss += self.penalty_weight * weighted_distance(
            filter_means(memory.fisher), net.params, memory.semantic.params
        )
        memory = memory._replace(semantic=memory.semantic._replace(stats=semantic_stats))
        return loss, LossAux(logits, stats, memory)

    def after_step(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, gradient: Tree, key: jax.Array
    ) -> TrainState:
        average_key, fisher_key, augment_key = jax.random.split(key, 3)
        memory = state.memory
        alpha = effective_alpha(state.step, self.ema_alpha)
        decay = jnp.where(bernoulli(average_key, self.ema_update_freq), alpha, 1.0)
        params = average(memory.semantic.params, state.net.params, decay)
        memory = memory._replace(semantic=memory.semantic._replace(params=params))
        due = bernoulli(fisher_key, self.fisher_update_freq)
        fisher, stats = lax.cond(
            due,
            lambda: self.consolidated(spec, state, memory, augment_key),
            lambda: (memory.fisher, memory.semantic.stats),
        )
        semantic = memory.semantic._replace(stats=stats)
        return state._replace(memory=Memory(semantic, fisher, memory.estimated | due))

    def consolidated(
        self, spec: ProblemSpec, state: TrainState, memory: Memory, key: jax.Array
    ) -> tuple[Any, Any]:
        """Return F averaged with the buffer's estimate, and the statistics of S after that."""
        items = state.buffer.items
        images = spec.augment(items["images"], key)
        fisher, stats = spec.net.fisher(memory.semantic, images, items["labels"])
        alpha = effective_alpha(state.step, self.fisher_alpha)
        decay = jnp.where(memory.estimated, alpha, 0.0)
        return average(memory.fisher, fisher, decay), stats

    def models(self, state: TrainState) -> dict[str, Variables]:
        return {"working": state.net, "semantic": state.memory.semantic}
