"""Learners of a composition: what changes the weights of a network within a lifetime.

Every one returns as aux of an update the outputs before it. Those that descend a gradient change
any of `compose.networks`; the others the perceptron of `compose.perceptron`, and see an input of
features. One more is a function, registered by a module of yours:

    @LEARNERS.register("mine")
    def mine(config: ComposeConfig, sizes: tuple[int, ...], labelled: bool) -> Component: ...
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tsar_jax.errors import UserError
from tsar_jax.networks.feedback_network import init_weights
from tsar_jax.networks.hebbian_network import DISTRIBUTIONS, layer_shapes
from tsar_jax.networks.types import LayerArrays
from tsar_jax.plasticity.buffer import Buffer, add_to_reservoir, draw, empty_buffer
from tsar_jax.plasticity.gradient_learner import GradientState, gradient_learner
from tsar_jax.plasticity.hebbian import (
    HebbianRule,
    draw_coefficients,
    find_rule,
    hebbian_update,
    multiply_rates,
    without_rate,
)
from tsar_jax.plasticity.learner import Learner
from tsar_jax.plasticity.losses import cross_entropy
from tsar_jax.plasticity.rule_learner import Rule, RuleTheta, rule_learner
from tsar_jax.plasticity.rules import find_terms
from tsar_jax.registry import Registry
from tsar_jax.systems.compose.config import ComposeConfig, refuse_settings
from tsar_jax.systems.compose.networks import NETWORKS, PlasticNetwork, perceptron
from tsar_jax.systems.compose.perceptron import draw_weights, forward, predict

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


def _descent(
    name: str,
    direction: optax.GradientTransformation,
    config: ComposeConfig,
    sizes: tuple[int, ...],
    labelled: bool,
) -> Component:
    """Return the learner that descends the cross-entropy, with a learning rate for each layer.

    direction: transformation of the gradient, without a learning rate.
    """
    need_labels(name, labelled)
    refuse_settings(config, f"learner {name}", "distribution")
    network = NETWORKS.find(config.network)(config, sizes)
    return Component(
        rated_init(config, network),
        rated_descent(config, network, network.predict, direction),
        lambda state: state.params,
        lambda state, weights: GradientState(weights, state.opt_state),
        (WEIGHTS, RATES),
        network=network,
        gated=rated_descent(config, network, network.predict_gated, direction),
    )


def rated_init(config: ComposeConfig, network: PlasticNetwork) -> Callable[[jax.Array], Theta]:
    """Return (key) -> theta of gradient descent: the weights, and each layer's learning rate."""

    def init(key: jax.Array) -> Theta:
        rates = jnp.full(len(network.layers), jnp.log(config.rate))
        return {WEIGHTS: network.init(key), RATES: rates}

    return init


def rated_descent(
    config: ComposeConfig,
    network: PlasticNetwork,
    predict: Callable[[Any, Any], jax.Array],
    direction: optax.GradientTransformation,
    loss: Callable[[jax.Array, Any], jax.Array] = cross_entropy,
) -> Learner:
    """Return gradient descent whose learning rates are a part of theta; aux are the outputs.

    theta["rates"] [layers] are natural logarithms of the rates, so that they stay positive.

    Args:
        network: whose weights are theta["weights"].
        predict: (weights, inputs) -> its logits.
        direction: transformation of the gradient, without a learning rate.
        loss: of logits and targets, to descend.
    """

    def learner_of(theta: Theta) -> Learner:
        def scale(updates: Any, _: Any) -> Any:
            return network.scale(updates, -jnp.exp(theta[RATES]))

        return gradient_learner(
            predict,
            network.plastic,
            optax.chain(direction, optax.stateless(scale)),
            loss=loss,
            first_order=config.order == "first",
            aux=lambda loss, outputs: outputs[0],
        )

    return Learner(
        lambda theta, key: learner_of(theta).init(theta[WEIGHTS], key),
        lambda theta, state, example, key: learner_of(theta).update(
            theta[WEIGHTS], state, example, key
        ),
        lambda theta, state, inputs: learner_of(theta).predict(theta[WEIGHTS], state, inputs),
    )


LEARNERS.register("sgd")(partial(_descent, "sgd", optax.identity()))
# Without eps_root the meta-gradient of a weight that has had no gradient yet is not a number.
ADAM = optax.scale_by_adam(eps_root=1e-8)
LEARNERS.register("adam")(partial(_descent, "adam", ADAM))


def _rule(
    name: str,
    terms: tuple[str, ...] | None,
    config: ComposeConfig,
    sizes: tuple[int, ...],
    labelled: bool,
) -> Component:
    """Return the learner of a local rule with feedback weights of its own.

    terms: names of the rule's terms; None: config's.
    """
    need_labels(name, labelled)
    refuse_settings(config, f"learner {name}", "units", "distribution")
    rule = Rule(find_terms(terms or config.terms), config.feedback, config.beta)
    local = rule_learner(rule, sizes)

    def init(key: jax.Array) -> Theta:
        weights_key, feedback_key = jax.random.split(key)
        random_weights = () if rule.feedback == "sym" else init_weights(feedback_key, sizes)
        coefficients = jnp.zeros(len(rule.terms)).at[0].set(config.initial_coefficient)
        return {
            WEIGHTS: draw_weights(config, weights_key, sizes),
            COEFFICIENTS: coefficients,
            FEEDBACK: random_weights,
        }

    def constants(theta: Theta) -> RuleTheta:
        return RuleTheta(theta[COEFFICIENTS], theta[FEEDBACK])

    inverse = local.inverse
    if inverse is not None:
        change = inverse.change
        inverse = inverse._replace(
            change=lambda theta, state, example, key: change(constants(theta), state, example, key)
        )
    learner = Learner(
        lambda theta, key: theta[WEIGHTS],
        lambda theta, state, example, key: local.update(constants(theta), state, example, key),
        lambda theta, state, inputs: local.predict(constants(theta), state, inputs),
        inverse,
    )
    component = plain_component(init, learner, (COEFFICIENTS,))
    return component._replace(needs=(COEFFICIENTS, FEEDBACK))


LEARNERS.register("rule")(partial(_rule, "rule", None))
LEARNERS.register("feedback_alignment")(partial(_rule, "feedback_alignment", ("pseudo_gradient",)))


@LEARNERS.register("hebbian")
def hebbian(config: ComposeConfig, sizes: tuple[int, ...], labelled: bool) -> Component:
    """Return the learner of a Hebbian rule, whose last activities are the target where there is
    one, and else the outputs.
    """
    rule, layers = find_rule(config.hebbian_rule), layer_shapes(sizes)
    prepared = without_rate(rule)

    def init(key: jax.Array) -> Theta:
        # The weights have one of the key's children for each layer, the coefficients the next one.
        coefficients_key = jax.random.fold_in(key, len(layers))
        coefficients = _first_coefficients(config, rule, coefficients_key, layers)
        return {WEIGHTS: draw_weights(config, key, sizes), COEFFICIENTS: coefficients}

    def prepare(theta: Theta) -> Theta:
        return theta | {COEFFICIENTS: tuple(multiply_rates(rule, c) for c in theta[COEFFICIENTS])}

    def coefficients_of(theta: Theta) -> LayerArrays:
        stored = theta[COEFFICIENTS]
        shared = stored * len(layers) if config.sharing == "all" else stored
        return tuple(
            jnp.broadcast_to(c, (len(prepared.columns), *shape))
            for c, shape in zip(shared, layers, strict=True)
        )

    def update(theta: Theta, state: LayerArrays, example: Any, key: Any = None) -> Any:
        del key
        *active, outputs = forward(config, state, example[0])
        last = outputs
        if labelled:
            last = jax.nn.one_hot(example[1], sizes[-1], dtype=outputs.dtype)
        coefficients = coefficients_of(theta)
        changed = hebbian_update(prepared, coefficients, state, (*active, last), normalised=True)
        return changed, outputs

    learner = Learner(
        lambda theta, key: theta[WEIGHTS],
        update,
        lambda theta, state, inputs: predict(config, state, inputs),
    )
    return Component(
        init,
        learner,
        lambda state: state,
        lambda _, weights: weights,
        (COEFFICIENTS,),
        prepare=prepare,
    )


def _first_coefficients(
    config: ComposeConfig, rule: HebbianRule, key: jax.Array, layers: list[tuple[int, int]]
) -> LayerArrays:
    """Return Hebbian coefficients before the first meta-step, [k, ...] of each that has its own."""
    shapes = [shape if config.sharing == "synapse" else (1, 1) for shape in layers]
    if config.sharing == "all":
        shapes = shapes[:1]
    if config.distribution != "constant":
        distribution = DISTRIBUTIONS[config.distribution]
        return draw_coefficients(rule, distribution, key, shapes, scale=config.scale)
    first = jnp.array([{"A": config.scale, "eta": 1.0}.get(name, 0.0) for name in rule.columns])
    return tuple(jnp.broadcast_to(first[:, None, None], (len(first), *shape)) for shape in shapes)


@LEARNERS.register("fixed")
def fixed(config: ComposeConfig, sizes: tuple[int, ...], labelled: bool) -> Component:
    """Return the learner that does not learn: whatever is gained is gained across lifetimes."""
    del labelled
    refuse_settings(config, "learner fixed", "distribution")
    learner = Learner(
        lambda theta, key: theta[WEIGHTS],
        lambda theta, state, example, key: (state, ()),
        lambda theta, state, inputs: predict(config, state, inputs),
    )
    component = plain_component(
        lambda key: {WEIGHTS: draw_weights(config, key, sizes)}, learner, (WEIGHTS,)
    )
    return component._replace(plastic=False)


class ReplayState(NamedTuple):
    """State of replay. descent: the gradient learner's. buffer: of earlier examples."""

    descent: GradientState
    buffer: Buffer


@LEARNERS.register("replay")
def replay(config: ComposeConfig, sizes: tuple[int, ...], labelled: bool) -> Component:
    """Return experience replay: SGD on the example together with some of a reservoir's.

    Chaudhry et al. (2019), arXiv 1902.10486; a reservoir as in Vitter (1985).
    """
    need_labels("replay", labelled)
    refuse_settings(config, "learner replay", "distribution")

    def loss(outputs: jax.Array, targets: tuple[jax.Array, jax.Array]) -> jax.Array:
        labels, mask = targets
        each = optax.softmax_cross_entropy_with_integer_labels(outputs[0], labels[0])
        return (mask[0] * each).sum() / mask.sum()

    network = perceptron(config, sizes)
    descent = rated_descent(config, network, network.predict, optax.identity(), loss)
    item = {
        "features": jax.ShapeDtypeStruct((sizes[0],), jnp.result_type(float)),
        "labels": jax.ShapeDtypeStruct((), jnp.int32),
    }

    def start(theta: Theta, key: Any) -> ReplayState:
        return ReplayState(descent.init(theta, key), empty_buffer(config.buffer, item))

    def update(theta: Theta, state: ReplayState, example: Any, key: jax.Array) -> Any:
        draw_key, store_key = jax.random.split(key)
        features, label = example
        old = draw(state.buffer, draw_key, config.replayed)
        inputs = jnp.concatenate([features[None], old.items["features"]])
        labels = jnp.append(label.astype(jnp.int32), old.items["labels"])
        mask = jnp.append(1.0, old.mask)
        changed, outputs = descent.update(theta, state.descent, (inputs, (labels, mask)), None)
        offered = {"features": features[None], "labels": label[None]}
        buffer = add_to_reservoir(state.buffer, store_key, offered, jnp.ones(1))
        return ReplayState(changed, buffer), outputs[0]

    learner = Learner(
        start,
        update,
        lambda theta, state, inputs: descent.predict(theta, state.descent, inputs),
    )
    return Component(
        rated_init(config, network),
        learner,
        lambda state: state.descent.params,
        lambda state, weights: state._replace(
            descent=GradientState(weights, state.descent.opt_state)
        ),
        (WEIGHTS, RATES),
        replays=True,
    )
