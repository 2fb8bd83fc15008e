"""What a learner of a composition is, and their registry."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from tsar_jax.errors import UserError
from tsar_jax.plasticity.learner import Learner
from tsar_jax.registry import Registry
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.networks import PlasticNetwork

Theta = dict[str, Any]
"""Trees of arrays by name: what a lifetime is given. Some are meta-learned."""


def as_it_is(theta: Theta) -> Theta:
    """Return theta: a lifetime takes it as it is meta-learned."""
    return theta


class Component(NamedTuple):
    """A learner with all that it is given.

    init: (key) -> theta. What is meta-learned begins so; a lifetime draws everything else anew.
    learner: its theta is that one, prepared. The aux of an update are the outputs [outputs] before
        it.
    weights_of: (state) -> the weights that change, of a perceptron a `LayerArrays`.
    with_weights: (state, weights) -> the state with these weights.
    recommended: names of the parts of theta that are meta-learned unless others are named.
    plastic: whether updates change the weights at all.
    network: whose weights they are; None: a perceptron whose inputs are features.
    gated: the learner for pairs (gates [N, width], inputs) in place of inputs, the gates being of
        the network's features; None: gates multiply the inputs.
    needs: names of the parts of theta that updates need, beside state and example, where they can
        be inverted; None: all.
    in_advance: (the modulator's heads, codes [N, code]) -> what a modulated learner sees in place
        of codes; None: codes.
    replays: whether an update learns earlier examples too.
    prepare: (theta) -> theta as the learner takes it, computed once per lifetime.
    """

    init: Callable[[jax.Array], Theta]
    learner: Learner
    weights_of: Callable[[Any], Any]
    with_weights: Callable[[Any, Any], Any]
    recommended: tuple[str, ...]
    plastic: bool = True
    network: PlasticNetwork | None = None
    gated: Learner | None = None
    needs: tuple[str, ...] | None = None
    in_advance: Callable[[Any, jax.Array], Any] | None = None
    replays: bool = False
    prepare: Callable[[Theta], Theta] = as_it_is


MakeLearner = Callable[[ComposeConfig, tuple[int, ...], bool], Component]
"""(config, units of each layer, whether examples have labels) -> component; raises UserError where
it needs labels and there are none."""

LEARNERS: Registry[MakeLearner] = Registry("learner")
"""Every learner by the name that a config gives it."""

RATES, WEIGHTS, COEFFICIENTS, FEEDBACK = "rates", "weights", "coefficients", "feedback"


def need_labels(name: str, labelled: bool) -> None:
    """Raise UserError where a learner of errors would have none."""
    if not labelled:
        raise UserError(
            f"The learner {name} descends an error, but the stream gives no targets: take hebbian "
            "or fixed, or a stream of images."
        )


def with_outputs(learner: Learner) -> Learner:
    """Return the learner, the aux of whose updates are the outputs before them."""

    def update(theta: Any, state: Any, example: Any, key: Any = None) -> tuple[Any, jax.Array]:
        rows = jax.tree.map(lambda leaf: leaf[None], example[0])
        outputs = learner.predict(theta, state, rows)[0]
        return learner.update(theta, state, example, key)[0], outputs

    return Learner(learner.init, update, learner.predict, learner.inverse)


def plain_component(
    init: Callable[[jax.Array], Theta], learner: Learner, recommended: tuple[str, ...]
) -> Component:
    """Return the component of a learner whose state is its weights."""
    return Component(
        init, with_outputs(learner), lambda state: state, lambda _, weights: weights, recommended
    )
