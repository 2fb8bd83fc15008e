"""CLS-ER (Arani et al. 2022): two averages of the working model are teachers for replayed items."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tsar_jax.errors import check_frequencies, check_weights
from tsar_jax.networks.classifier import Tree, Variables
from tsar_jax.plasticity.averages import average, bernoulli, effective_alpha
from tsar_jax.plasticity.methods.base import (
    Batch,
    Examples,
    LossAux,
    Method,
    ProblemSpec,
    TrainState,
    consistency_loss,
    replay,
)

Memory = dict[str, Variables]
STABLE, PLASTIC = "stable", "plastic"


@dataclasses.dataclass(frozen=True)
class CLSER(Method):
    """L = reg_weight * MSE(W(b), z) + CE(W(batch and b)).

    z are, item by item, the logits of the stable or of the plastic model, whichever gives the true
    class the higher probability. Either average is updated after a step with the probability and
    at the rate of its own; its batch-norm statistics are those of its own passes.
    """

    buffered: ClassVar[bool] = True
    reported: ClassVar[str] = STABLE
    reg_weight: float = 0.15
    """Weight of the consistency loss, at least 0."""
    stable_model_update_freq: float = 0.1
    """Probability that a step updates the stable model, 0 to 1."""
    stable_model_alpha: float = 0.999
    """Decay of the stable model, 0 to 1."""
    plastic_model_update_freq: float = 0.3
    """Probability that a step updates the plastic model, 0 to 1."""
    plastic_model_alpha: float = 0.999
    """Decay of the plastic model, 0 to 1."""

    def __post_init__(self) -> None:
        check_weights(self, "reg_weight")
        check_frequencies(self, "stable_model_update_freq", "plastic_model_update_freq")
        check_frequencies(self, "stable_model_alpha", "plastic_model_alpha")

    def init_memory(self, spec: ProblemSpec, net: Variables) -> Memory:
        return {STABLE: net, PLASTIC: net}

    def loss(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        drawn = replay(spec, state.buffer, key)
        target, memory = self.target(spec, state.memory, drawn)
        net = state.net
        loss, logits, stats = consistency_loss(spec, net, batch, drawn, target, self.reg_weight)
        return loss, LossAux(logits, stats, memory)

    def target(
        self, spec: ProblemSpec, memory: Memory, drawn: Examples
    ) -> tuple[jax.Array, Memory]:
        """Return logits of the average that is surer of an item's class, and both averages after
        the pass.
        """
        logits, confidence, after = {}, {}, {}
        for name, model in memory.items():
            logits[name], stats = spec.net.train(model, drawn.images, drawn.mask)
            after[name] = Variables(model.params, stats)
            probability = jax.nn.softmax(logits[name])
            confidence[name] = jnp.take_along_axis(probability, drawn.labels[:, None], -1)
        stable = confidence[STABLE] > confidence[PLASTIC]
        return jnp.where(stable, logits[STABLE], logits[PLASTIC]), after

    def after_step(
        self, spec: ProblemSpec, state: TrainState, batch: Batch, gradient: Tree, key: jax.Array
    ) -> TrainState:
        keys = dict(zip((STABLE, PLASTIC), jax.random.split(key), strict=True))
        memory = {}
        for name, model in state.memory.items():
            alpha = effective_alpha(state.step, getattr(self, f"{name}_model_alpha"))
            due = bernoulli(keys[name], getattr(self, f"{name}_model_update_freq"))
            decay = jnp.where(due, alpha, 1.0)
            memory[name] = model._replace(params=average(model.params, state.net.params, decay))
        return state._replace(memory=memory)

    def models(self, state: TrainState) -> dict[str, Variables]:
        return {"working": state.net, **state.memory}
