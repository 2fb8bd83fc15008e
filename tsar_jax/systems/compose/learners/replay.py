"""Experience replay with learning rates that can be meta-learned."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tsar_jax.plasticity.buffer import Buffer, add_to_reservoir, draw, empty_buffer
from tsar_jax.plasticity.gradient_learner import GradientState
from tsar_jax.plasticity.learner import Learner
from tsar_jax.systems.compose.config import ComposeConfig, refuse_settings
from tsar_jax.systems.compose.learners.descent import rated_descent, rated_init
from tsar_jax.systems.compose.learners.types import (
    LEARNERS,
    RATES,
    WEIGHTS,
    Component,
    Theta,
    need_labels,
)
from tsar_jax.systems.compose.networks import perceptron


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
