"""Modulations of a composition: what multiplies a learner's activations, weights or updates.

The inputs of a modulated learner are pairs: a code, which the modulator computes from the same
image by an encoder of its own, and the features that the learner sees. One more is a function,
registered by a module of yours:

    @MODULATIONS.register("mine")
    def mine(config: ComposeConfig, component: Component, widths: Widths) -> Component: ...
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tsar_jax.errors import UserError
from tsar_jax.networks.types import LayerArrays
from tsar_jax.plasticity.learner import Learner
from tsar_jax.plasticity.losses import cross_entropy
from tsar_jax.plasticity.modulation import (
    Modulated,
    gate_activations,
    modulate_updates,
    regulate_weights,
)
from tsar_jax.registry import Registry
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.learners import Component, Theta


class Widths(NamedTuple):
    """The widths of a composition's parts, which a modulation is made for.

    code: length of the code that it sees. sizes: units of each of the learner's layers, the
    features first. labelled: whether examples have labels.
    """

    code: int
    sizes: tuple[int, ...]
    labelled: bool

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Return the shapes of the learner's weights, [out, in]."""
        return list(zip(self.sizes[1:], self.sizes[:-1], strict=True))


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

    def update(theta: Any, state: Any, example: Any, key: Any = None) -> tuple[Any, Any]:
        (_, features), target = example
        return learner.update(theta, state, (features, target), key)

    return Learner(
        learner.init,
        update,
        lambda theta, state, inputs: learner.predict(theta, state, inputs[1]),
    )


def with_heads(
    component: Component,
    modulated: Learner,
    heads: Callable[[jax.Array], Any],
) -> Component:
    """Return the component of a modulated learner, whose theta is a `Modulated`.

    Args:
        component: of the learner before.
        modulated: the learner after; its modulator's parameters are the heads.
        heads: (key) -> the heads' first parameters.
    """

    def init(key: jax.Array) -> Theta:
        own_key, heads_key = jax.random.split(key)
        return component.init(own_key) | {MODULATOR: {HEADS: heads(heads_key)}}

    def split(theta: Theta) -> Modulated:
        return Modulated(theta, theta[MODULATOR][HEADS])

    learner = Learner(
        lambda theta, key: modulated.init(split(theta), key),
        lambda theta, state, example, key: modulated.update(split(theta), state, example, key),
        lambda theta, state, inputs: modulated.predict(split(theta), state, inputs),
    )
    return component._replace(init=init, learner=learner)


def draw_dense(key: jax.Array, inputs: int, outputs: int, bias: float) -> dict[str, jax.Array]:
    """Draw a kernel [inputs, outputs] of deviation 1 / sqrt(inputs), with biases [outputs]."""
    kernel = jax.random.normal(key, (inputs, outputs)) / jnp.sqrt(inputs)
    return {"kernel": kernel, "bias": jnp.full(outputs, bias)}


def dense(params: dict[str, jax.Array], codes: jax.Array) -> jax.Array:
    """Return codes [..., inputs] times the kernel plus the bias, [..., outputs]."""
    return codes @ params["kernel"] + params["bias"]


@MODULATIONS.register("none")
def none(config: ComposeConfig, component: Component, widths: Widths) -> Component:
    """Return the learner as it is."""
    del config, widths
    return component._replace(learner=seeing_features(component.learner))


@MODULATIONS.register("activations")
def activations(config: ComposeConfig, component: Component, widths: Widths) -> Component:
    """Return a learner whose features are multiplied by gates, as ANML's (arXiv 2002.09571)."""
    features = widths.sizes[0]

    def gate(head: Any, codes: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(dense(head, codes))

    def heads(key: jax.Array) -> Any:
        return draw_dense(key, widths.code, features, config.modulator_bias)

    return with_heads(component, gate_activations(component.learner, gate), heads)


def layer_gates(widths: Widths, heads: Any, codes: jax.Array) -> LayerArrays:
    """Return logits for each synapse, per layer [..., out, in], of codes [..., code]."""
    return tuple(
        dense(head, codes).reshape(*codes.shape[:-1], *shape)
        for head, shape in zip(heads, widths.layers, strict=True)
    )


def draw_layer_gates(widths: Widths, bias: float, key: jax.Array) -> tuple[Any, ...]:
    """Draw a dense layer for each of the learner's layers, with an output for each synapse."""
    keys = jax.random.split(key, len(widths.layers))
    return tuple(
        draw_dense(k, widths.code, out * into, bias)
        for k, (out, into) in zip(keys, widths.layers, strict=True)
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

    def gate(heads: Any, inputs: tuple[jax.Array, jax.Array]) -> LayerArrays:
        return tuple(map(jax.nn.sigmoid, layer_gates(widths, heads, inputs[0])))

    modulated = regulate_weights(
        seeing_features(component.learner),
        gate,
        weights_of=component.weights_of,
        with_weights=component.with_weights,
    )

    def heads(key: jax.Array) -> Any:
        return draw_layer_gates(widths, config.modulator_bias, key)

    return with_heads(component, modulated, heads)


@MODULATIONS.register("updates")
def updates(config: ComposeConfig, component: Component, widths: Widths) -> Component:
    """Return a learner the change of each of whose synapses is multiplied by 0 to 2.

    A factor is twice the sigmoid of a function of the input, so that a modulator whose kernel is
    zero and whose bias is 0 changes nothing; predictions are the learner's own.
    """

    def signal(heads: Any, example: Any, outputs: jax.Array) -> LayerArrays:
        del outputs
        code = example[0][0]
        return tuple(2 * jax.nn.sigmoid(gates) for gates in layer_gates(widths, heads, code))

    def heads(key: jax.Array) -> Any:
        return draw_layer_gates(widths, config.modulator_bias, key)

    return with_heads(component, _modulate_updates(component, signal), heads)


@MODULATIONS.register("layers")
def layers(config: ComposeConfig, component: Component, widths: Widths) -> Component:
    """Return a learner whose changes are multiplied by a signal for each layer, of 0 to 2.

    The signal is twice the sigmoid of a linear function of the code, of the outputs' entropy and,
    where there are labels, of their cross-entropy (surprise).
    """
    count = len(widths.layers)

    def signal(head: Any, example: Any, outputs: jax.Array) -> LayerArrays:
        (code, _), target = example
        felt = [code, _entropy(outputs)[None]]
        if widths.labelled:
            felt.append(cross_entropy(outputs[None], target[None])[None])
        return tuple(2 * jax.nn.sigmoid(dense(head, jnp.concatenate(felt))))

    def heads(key: jax.Array) -> Any:
        felt = widths.code + 1 + widths.labelled
        return draw_dense(key, felt, count, config.modulator_bias)

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
