"""Modulation: from a learner to a learner whose activations, weights or updates are multiplied.

Beaulieu et al. (2020), arXiv 2002.09571, gate activations (ANML); Beaulieu, Clune and Cheney
(2021), arXiv 2108.12056, gate every weight (TSAR). The wrappers know nothing of the learner but its
three functions. `tsar_jax.networks` has the two published networks whole, which compute the same
faster.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax

from tsar_jax.networks.regulated import gate_weights
from tsar_jax.plasticity.learner import Learner, adapt

Tree = Any

Gate = Callable[[Tree, Tree], Tree]
"""(parameters of the modulator, inputs [N, ...]) -> gates [N, ...]"""


class Modulated(NamedTuple):
    """The theta of a modulated learner: the learner's own, and the modulator's parameters."""

    learner: Tree
    modulator: Tree


def gate_activations(learner: Learner, gate: Gate) -> Learner:
    """Return a learner whose inputs are multiplied by gates, as ANML's are before its output layer.

    theta is a `Modulated`. Inputs are pairs: what the modulator sees, and the activations that the
    gates multiply before the learner gets them. The state is the learner's. The result has no
    inverse.

    Args:
        learner: takes activations [N, features] for inputs.
        gate: (modulator, what it sees [N, ...]) -> gates [N, features].
    """

    def multiply(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        gates, activations = inputs
        return gates * activations

    return gate_within(adapt(learner._replace(inverse=None), inputs=multiply), gate)


def gate_within(learner: Learner, gate: Gate) -> Learner:
    """Return a learner some of whose inner activations are multiplied by gates.

    theta is a `Modulated`. Inputs are pairs: what the modulator sees, and the learner's own inputs.
    The state is the learner's. The result has no inverse.

    Args:
        learner: for inputs it takes pairs, gates [N, features] and inputs [N, ...].
        gate: (modulator, what it sees [N, ...]) -> gates [N, features].
    """

    def init(theta: Modulated, key: Any = None) -> Tree:
        return learner.init(theta.learner, key)

    def update(theta: Modulated, state: Tree, example: Tree, key: Any = None) -> tuple[Tree, Tree]:
        (seen, inputs), target = example
        gates = gate(theta.modulator, jax.tree.map(lambda leaf: leaf[None], seen))
        gates = jax.tree.map(lambda leaf: leaf[0], gates)
        return learner.update(theta.learner, state, ((gates, inputs), target), key)

    def predict(theta: Modulated, state: Tree, inputs: tuple[Tree, Tree]) -> Tree:
        seen, own = inputs
        return learner.predict(theta.learner, state, (gate(theta.modulator, seen), own))

    return Learner(init, update, predict)


def regulate_weights(
    learner: Learner,
    gate: Gate,
    *,
    weights_of: Callable[[Tree], Tree] = lambda state: state,
    with_weights: Callable[[Tree, Tree], Tree] = lambda state, weights: weights,
    first_order: bool = False,
) -> Learner:
    """Return a learner every weight of which is multiplied by a gate of its own, as in TSAR.

    For one input with gates g the learner has the weights g W instead of W; and the change that it
    makes to them reaches W through the gates, W' = W + g ((g W)' - g W). By SGD that is a step down
    the gradient of W. theta is a `Modulated`. An optimiser with moments counts those of g W.

    Args:
        learner: its updates change weights by an example.
        gate: (modulator, inputs [N, ...]) -> tree like the weights, of gates [N, *weight], or None
            in place of gates for weights that are not regulated.
        weights_of: (state) -> weights; by default the state is nothing else.
        with_weights: (state, weights) -> the state with these weights.
        first_order: treat gates and weights as constants of what is added to W, as a first-order
            meta-gradient does with the gradient of W. The learner's theta, such as learning rates,
            still has a gradient.
    """

    def under(gates: Tree, weights: Tree) -> Tree:
        return jax.tree.map(lambda w, g: w if g is None else g * w, weights, gates)

    def under_each(gates: Tree, weights: Tree) -> tuple[Tree, Tree]:
        """Return weights under the gates of N inputs, and the axes of those that differ."""
        each_weights = jax.tree.map(
            lambda w, g: w if g is None else gate_weights(w, g), weights, gates
        )
        return each_weights, jax.tree.map(lambda w, g: None if g is None else 0, weights, gates)

    def init(theta: Modulated, key: Any = None) -> Tree:
        return learner.init(theta.learner, key)

    def gates_of(theta: Modulated, one: Tree) -> Tree:
        """Return the gates of one input."""
        gates = gate(theta.modulator, jax.tree.map(lambda leaf: leaf[None], one))
        return jax.tree.map(lambda leaf: leaf[0], gates)

    def update(theta: Modulated, state: Tree, example: Tree, key: Any = None) -> tuple[Tree, Tree]:
        gates, weights = gates_of(theta, example[0]), weights_of(state)
        if first_order:
            gates, before = lax.stop_gradient((gates, under(gates, weights)))
        else:
            before = under(gates, weights)
        changed, aux = learner.update(theta.learner, with_weights(state, before), example, key)
        change = jax.tree.map(lambda new, old: new - old, weights_of(changed), before)
        new = jax.tree.map(lambda w, c: w + c, weights, under(gates, change))
        return with_weights(changed, new), aux

    def predict(theta: Modulated, state: Tree, inputs: Tree) -> Tree:
        def one(weights: Tree, row: Tree) -> Tree:
            rows = jax.tree.map(lambda leaf: leaf[None], row)
            outputs = learner.predict(theta.learner, with_weights(state, weights), rows)
            return jax.tree.map(lambda leaf: leaf[0], outputs)

        each_weights, axes = under_each(gate(theta.modulator, inputs), weights_of(state))
        return jax.vmap(one, (axes, 0))(each_weights, inputs)

    return Learner(init, update, predict)


def modulate_updates(
    learner: Learner,
    signal: Callable[[Tree, Tree, Tree], Tree],
    *,
    weights_of: Callable[[Tree], Tree] = lambda state: state,
    with_weights: Callable[[Tree, Tree], Tree] = lambda state, weights: weights,
) -> Learner:
    """Return a learner whose changes of weights are multiplied by a signal, and nothing else is.

    An update that would lead from W to W' leads to W + s (W' - W), as where a neuromodulator acts
    on plasticity alone; predictions are the learner's. theta is a `Modulated`. The result has no
    inverse.

    Args:
        learner: its updates change weights by an example; their aux reaches the signal.
        signal: (modulator, example, aux of the update) -> tree like the weights, of factors s that
            broadcast to a weight's shape: one for each synapse, or one for a layer; None in place
            of 1.
        weights_of, with_weights: as of `regulate_weights`.
    """

    def init(theta: Modulated, key: Any = None) -> Tree:
        return learner.init(theta.learner, key)

    def update(theta: Modulated, state: Tree, example: Tree, key: Any = None) -> tuple[Tree, Tree]:
        changed, aux = learner.update(theta.learner, state, example, key)
        factors = signal(theta.modulator, example, aux)
        new = jax.tree.map(
            lambda old, proposed, factor: (
                proposed if factor is None else old + factor * (proposed - old)
            ),
            weights_of(state),
            weights_of(changed),
            factors,
        )
        return with_weights(changed, new), aux

    def predict(theta: Modulated, state: Tree, inputs: Tree) -> Tree:
        return learner.predict(theta.learner, state, inputs)

    return Learner(init, update, predict)
