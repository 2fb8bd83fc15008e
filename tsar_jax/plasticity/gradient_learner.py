"""Learners that follow the gradient of a loss, one example after another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import lax

from tsar_jax.networks import Network, run_stages
from tsar_jax.plasticity.learner import Learner
from tsar_jax.plasticity.losses import cross_entropy
from tsar_jax.plasticity.masks import combine, partition

Tree = Any


class GradientState(NamedTuple):
    """State of a gradient learner.

    params: the plastic part of the parameters, see `masks.partition`. opt_state: the optimiser's.
    """

    params: Tree
    opt_state: optax.OptState


def gradient_learner(
    predict: Callable[[Tree, Tree], jax.Array],
    plastic: Tree,
    optimiser: optax.GradientTransformation,
    *,
    loss: Callable[[jax.Array, Tree], jax.Array] = cross_entropy,
    first_order: bool = False,
    aux: Callable[[jax.Array, jax.Array], Tree] = lambda loss, outputs: loss,
) -> Learner:
    """Return a learner that descends the loss of one example at a time by an optax transformation.

    theta is the parameters that a lifetime begins with; those that are not plastic stay as they
    are. An example is (inputs, target) without a leading axis.

    Args:
        predict: (params, inputs [N, ...]) -> outputs [N, ...].
        plastic: tree of booleans like the parameters, True where they learn.
        optimiser: transformation of the gradient, such as optax.sgd(0.1) or optax.adam(1e-3); none
            that needs more than gradient, state and parameters.
        loss: (outputs [N, ...], targets [N, ...]) -> scalar.
        first_order: treat the gradients as constants, so that no meta-gradient flows through them
            (Finn et al. 2017, arXiv 1703.03400, section 5.2).
        aux: (loss, outputs [1, ...], both before the update) -> aux of the update.
    """

    def init(theta: Tree, key: Any = None) -> GradientState:
        del key
        params = partition(theta, plastic)[0]
        return GradientState(params, optimiser.init(params))

    def update(
        theta: Tree, state: GradientState, example: Tree, key: Any = None
    ) -> tuple[GradientState, jax.Array]:
        del key
        frozen = partition(theta, plastic)[1]
        if first_order:  # no gradient reaches them: spare the backward pass a visit
            example = lax.stop_gradient(example)
        inputs, targets = jax.tree.map(lambda leaf: leaf[None], example)

        def loss_of(params: Tree) -> tuple[jax.Array, jax.Array]:
            outputs = predict(combine(params, frozen), inputs)
            return loss(outputs, targets), outputs

        (value, outputs), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        if first_order:
            gradient = lax.stop_gradient(gradient)
        updates, opt_state = optimiser.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return GradientState(params, opt_state), aux(value, outputs)

    def predict_now(theta: Tree, state: GradientState, inputs: Tree) -> jax.Array:
        return predict(current_params(theta, plastic, state), inputs)

    return Learner(init, update, predict_now)


def network_learner(
    network: Network,
    plastic: Tree,
    depth: int,
    optimiser: optax.GradientTransformation,
    *,
    first_order: bool = False,
) -> Learner:
    """Return the `gradient_learner` of a network's cross-entropy.

    Args:
        network: whose parameters are theta.
        plastic: tree of booleans like the network's parameters, True where they learn.
        depth: number of stages that do not learn; inputs are the activations that enter the next
            one, so that those of a whole stream can be computed before it
            (`networks.frozen_stages`, `networks.stored_stages`).
        optimiser: see `gradient_learner`.
        first_order: see `gradient_learner`.
    """

    def predict(params: Tree, activations: Tree) -> jax.Array:
        return run_stages(network, params, activations, depth)

    return gradient_learner(predict, plastic, optimiser, first_order=first_order)


def current_params(theta: Tree, plastic: Tree, state: GradientState) -> Tree:
    """Return all parameters: the plastic ones from the state, the others as in theta."""
    return combine(state.params, partition(theta, plastic)[1])
