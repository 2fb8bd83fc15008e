"""Modulations of a composition: what multiplies a learner's activations, weights or updates.

The inputs of a modulated learner are pairs: a code, which the modulator computes from the same
image by an encoder of its own, or what has been computed of it in advance; and what the learner
sees. One more is a function, registered by a module of yours:

    @MODULATIONS.register("mine")
    def mine(config: ComposeConfig, component: Component, widths: Widths) -> Component: ...
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tsar_jax.errors import UserError
from tsar_jax.ops.products import wide_affine
from tsar_jax.plasticity.learner import Learner, adapt
from tsar_jax.plasticity.losses import cross_entropy
from tsar_jax.plasticity.modulation import (
    Modulated,
    gate_activations,
    gate_within,
    modulate_updates,
    regulate_weights,
)
from tsar_jax.registry import Registry
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.learners import Component, Theta


class Widths(NamedTuple):
    """The widths of a composition's parts, which a modulation is made for.

    code: length of the code that it sees. features: number of those that gates multiply.
    synapses: tree like the learner's weights, of the shapes of those that gates and signals act on;
    None in place of others. labelled: whether examples have labels.
    in_advance: whether a gate for each synapse is computed in advance, for all images of a lifetime
    together, and not one image at a time.
    """

    code: int
    features: int
    synapses: Any
    labelled: bool
    in_advance: bool


MakeModulation = Callable[[ComposeConfig, Component, Widths], Component]
"""(config, learner, widths) -> the modulated learner, whose inputs are pairs (code, features)."""

MODULATIONS: Registry[MakeModulation] = Registry("modulation")
"""Every modulation by the name that a config gives it."""

MODULATOR, HEADS = "modulator", "heads"
"""Names in theta of the modulator, and in it of its last layer, which makes gates or signals of a
code.
"""


def seeing_features(learner: Learner) -> Learner:
    """Return the learner for pairs (code, features), of which it sees the features."""

    return adapt(learner, inputs=lambda pair: pair[1])


def with_heads(
    component: Component,
    modulated: Learner,
    heads: Callable[[jax.Array], Any],
    in_advance: Callable[[Any, jax.Array], Any] | None = None,
) -> Component:
    """Return the component of a modulated learner, whose theta is a `Modulated`.

    Args:
        component: of the learner before.
        modulated: the learner after; its modulator's parameters are the heads.
        heads: (key) -> the heads' first parameters.
        in_advance: (heads, codes [N, code]) -> what the modulated learner sees in place of codes.
    """

    def init(key: jax.Array) -> Theta:
        own_key, heads_key = jax.random.split(key)
        return component.init(own_key) | {MODULATOR: {HEADS: heads(heads_key)}}

    def split(theta: Theta) -> Modulated:
        return Modulated(theta, theta[MODULATOR][HEADS])

    return component._replace(
        init=init, learner=adapt(modulated, theta=split), in_advance=in_advance
    )


def given(heads: Any, gates: Any) -> Any:
    """Return gates that have been computed in advance."""
    del heads
    return gates


def draw_dense(key: jax.Array, inputs: int, outputs: int, bias: float) -> dict[str, jax.Array]:
    """Draw a kernel [inputs, outputs], He normal, with biases [outputs]."""
    kernel = jnp.sqrt(2 / inputs) * jax.random.normal(key, (inputs, outputs))
    return {"kernel": kernel, "bias": jnp.full(outputs, bias)}


def dense(params: dict[str, jax.Array], codes: jax.Array) -> jax.Array:
    """Return codes [N, inputs] times the kernel plus the bias, [N, outputs]."""
    kernel, bias = params["kernel"], params["bias"]
    return wide_affine(codes.astype(jnp.result_type(codes, kernel)), kernel, bias)


@MODULATIONS.register("none")
def none(config: ComposeConfig, component: Component, widths: Widths) -> Component:
    """Return the learner as it is."""
    del config, widths
    return component._replace(learner=seeing_features(component.learner))


@MODULATIONS.register("activations")
def activations(config: ComposeConfig, component: Component, widths: Widths) -> Component:
    """Return a learner whose features are multiplied by gates, as ANML's (arXiv 2002.09571)."""

    def gate(head: Any, codes: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(dense(head, codes))

    def heads(key: jax.Array) -> Any:
        return draw_dense(key, widths.code, widths.features, config.modulator_bias)

    if component.gated is None:
        modulated = gate_activations(component.learner, given)
    else:
        modulated = gate_within(component.gated, given)
    return with_heads(component, modulated, heads, in_advance=gate)


def synapse_gates(widths: Widths, heads: Any, codes: jax.Array) -> Any:
    """Return a gate of 0 to 1 for each synapse, of codes [N, code].

    Returns:
        A tree like `widths.synapses`, [N, *shape] each.
    """
    shapes, tree = jax.tree.flatten(widths.synapses)
    gates = [
        jax.nn.sigmoid(dense(head, codes)).reshape(-1, *synapse.shape)
        for head, synapse in zip(heads, shapes, strict=True)
    ]
    return jax.tree.unflatten(tree, gates)


def draw_synapse_gates(widths: Widths, bias: float, key: jax.Array) -> tuple[Any, ...]:
    """Draw a dense layer for each array of synapses, with an output for each of them."""
    shapes = jax.tree.leaves(widths.synapses)
    keys = jax.random.split(key, len(shapes))
    return tuple(
        draw_dense(k, widths.code, math.prod(synapse.shape), bias)
        for k, synapse in zip(keys, shapes, strict=True)
    )


@MODULATIONS.register("weights")
def weights(config: ComposeConfig, component: Component, widths: Widths) -> Component:
    """Return a learner each of whose weights is regulated, as TSAR's (arXiv 2108.12056).

    Raises:
        UserError: the learner replays earlier examples, which would have the gates of the present
            one.
    """
    if component.replays:
        raise UserError(
            "The modulation weights has other weights for every input, but the learner "
            f"{config.learner} learns several at once: take another of the two."
        )

    compute = partial(synapse_gates, widths)
    gates_of = given if widths.in_advance else compute
    modulated = regulate_weights(
        seeing_features(component.learner),
        lambda heads, inputs: gates_of(heads, inputs[0]),
        weights_of=component.weights_of,
        with_weights=component.with_weights,
        first_order=component.network is not None and config.order == "first",
    )

    def heads(key: jax.Array) -> Any:
        return draw_synapse_gates(widths, config.modulator_bias, key)

    return with_heads(component, modulated, heads, compute if widths.in_advance else None)


@MODULATIONS.register("updates")
def updates(config: ComposeConfig, component: Component, widths: Widths) -> Component:
    """Return a learner the change of each of whose synapses is multiplied by 0 to 2.

    A factor is twice the sigmoid of a function of the input, so that a modulator whose kernel is
    zero and whose bias is 0 changes nothing; predictions are the learner's own.
    """

    compute = partial(synapse_gates, widths)
    gates_of = given if widths.in_advance else compute

    def signal(heads: Any, example: Any, outputs: jax.Array) -> Any:
        del outputs
        rows = jax.tree.map(lambda leaf: leaf[None], example[0][0])
        return jax.tree.map(lambda gates: 2 * gates[0], gates_of(heads, rows))

    def heads(key: jax.Array) -> Any:
        return draw_synapse_gates(widths, config.modulator_bias, key)

    modulated = _modulate_updates(component, signal)
    return with_heads(component, modulated, heads, compute if widths.in_advance else None)


@MODULATIONS.register("layers")
def layers(config: ComposeConfig, component: Component, widths: Widths) -> Component:
    """Return a learner whose changes are multiplied by a signal for each layer, of 0 to 2.

    The signal is twice the sigmoid of a linear function of the code, of the outputs' entropy and,
    where there are labels, of their cross-entropy (surprise).
    """
    layers, tree = jax.tree.flatten(widths.synapses)

    def signal(head: Any, example: Any, outputs: jax.Array) -> Any:
        (code, _), target = example
        felt = [code, _entropy(outputs)[None]]
        if widths.labelled:
            felt.append(cross_entropy(outputs[None], target[None])[None])
        factors = 2 * jax.nn.sigmoid(dense(head, jnp.concatenate(felt)[None]))[0]
        return jax.tree.unflatten(tree, list(factors))

    def heads(key: jax.Array) -> Any:
        felt = widths.code + 1 + widths.labelled
        return draw_dense(key, felt, len(layers), config.modulator_bias)

    return with_heads(component, _modulate_updates(component, signal), heads)


def _modulate_updates(component: Component, signal: Callable[[Any, Any, Any], Any]) -> Learner:
    """Return the learner whose updates a signal multiplies. Raises UserError if it has none."""
    if not component.plastic:
        raise UserError(
            "The modulations updates and layers act on updates, but the learner has none: take "
            "activations, weights or none, or another learner."
        )
    return modulate_updates(
        seeing_features(component.learner),
        signal,
        weights_of=component.weights_of,
        with_weights=component.with_weights,
    )


def _entropy(outputs: jax.Array) -> jax.Array:
    """Return the entropy of the softmax of outputs [n], in nats."""
    return -(jax.nn.softmax(outputs) * jax.nn.log_softmax(outputs)).sum()
