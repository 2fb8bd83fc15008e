"""Hebbian rules."""

from typing import Any

import jax
import jax.numpy as jnp

from tsar_jax.networks.hebbian_network import DISTRIBUTIONS, layer_shapes
from tsar_jax.networks.types import LayerArrays
from tsar_jax.plasticity.hebbian import (
    HebbianRule,
    draw_coefficients,
    find_rule,
    hebbian_update,
    multiply_rates,
    without_rate,
)
from tsar_jax.plasticity.learner import Learner
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.learners.types import (
    COEFFICIENTS,
    LEARNERS,
    WEIGHTS,
    Component,
    Theta,
)
from tsar_jax.systems.compose.perceptron import draw_weights, forward, predict


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
