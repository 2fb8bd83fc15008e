"""The composition that a config names: a modulated learner, and what it sees of its inputs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tsar_jax.environments.types import Environment
from tsar_jax.errors import SIDE, UserError, check_known
from tsar_jax.networks.layers import Trunk
from tsar_jax.plasticity.learner import Learner
from tsar_jax.systems.compose.config import PERCEPTRON, ComposeConfig, refuse_settings
from tsar_jax.systems.compose.learners import (
    COEFFICIENTS,
    FEEDBACK,
    RATES,
    WEIGHTS,
    Component,
    Theta,
    find_learner,
)
from tsar_jax.systems.compose.modulations import HEADS, MODULATIONS, MODULATOR, Widths
from tsar_jax.systems.compose.networks import MICROBATCH, NETWORKS, perceptron
from tsar_jax.systems.compose.streams import ImageStream, Stream

GATES_IN_ADVANCE = 2**26
"""Most gates of synapses that are computed in advance, of all images together: 256 MB."""
ENCODER = "encoder"
"""Name in theta, and within the modulator, of convolutions that do not change in a lifetime."""

PARTS = (WEIGHTS, RATES, COEFFICIENTS, FEEDBACK, ENCODER, MODULATOR)
"""Names of the parts that theta may have, unless a learner of one's own has others."""


class Composition(NamedTuple):
    """A modulated learner with the encoders of its inputs.

    init: (key) -> all of theta.
    learner: theta as of complete, inputs pairs (code, features); aux of an update: the outputs
        before.
    sense: (theta, inputs [N, ...]) -> what modulator and network see of them: codes [N, code], or
        gates [N, ...] that are computed in advance; and features [N, features], or activations.
    meta_learned: names of the parts of theta that are meta-learned.
    forget: see `PlasticNetwork`. needs: see `Component`.
    prepare: (theta) -> theta as the learner takes it.
    """

    init: Callable[[jax.Array], Theta]
    learner: Learner
    sense: Callable[[Theta, jax.Array], tuple[Any, jax.Array]]
    meta_learned: tuple[str, ...]
    forget: Callable[[Any, jax.Array, jax.Array], Any]
    needs: tuple[str, ...] | None
    prepare: Callable[[Theta], Theta]

    def first(self, key: jax.Array) -> Theta:
        """Return the meta-learned parts of theta before the first step."""
        return {name: tree for name, tree in self.init(key).items() if name in self.meta_learned}

    def complete(self, meta_learned: Theta, key: jax.Array) -> Theta:
        """Return all of theta as a lifetime's learner takes it: what is not meta-learned is drawn
        with its key.
        """
        return self.prepare(self.init(key) | meta_learned)


def compose(config: ComposeConfig, stream: Stream, *, images: int = 1) -> Composition:
    """Return the composition that a config names, for a stream's inputs and outputs.

    Args:
        config: the choices.
        stream: what a lifetime learns.
        images: number of images that the modulator sees together, of all lifetimes of a meta-step:
            where its gates of them are few enough, they are computed in advance.

    Raises:
        UserError: there is no learner or modulation of the name, they do not fit together or to the
            stream, or theta has no part of a name.
    """
    labelled, kind = isinstance(stream, ImageStream), NETWORKS.find(config.network)
    encoder = modulator_encoder = None
    if isinstance(stream, ImageStream):
        width, outputs = math.prod(stream.shape), stream.outputs
        if not kind.on_images:
            encoder = find_trunk("encoder", config.encoder, config.channels, stream)
        if config.modulation != "none":
            modulator_encoder = find_trunk(
                "modulator_encoder", config.modulator_encoder, config.modulator_channels, stream
            )
    else:
        width, outputs = check_vector(config, stream), stream.num_actions
    sizes = (9 * config.channels if encoder else width, *config.hidden, outputs)
    code = 9 * config.modulator_channels if modulator_encoder else width
    plain = find_learner(config.learner)(config, sizes, labelled)
    network = plain.network or perceptron(config, sizes)
    check_network(config, plain, stream, on_images=kind.on_images)
    gates = sum(math.prod(synapse.shape) for synapse in jax.tree.leaves(network.synapses))
    widths = Widths(
        code, network.width, network.synapses, labelled, images * gates <= GATES_IN_ADVANCE
    )
    component = MODULATIONS.find(config.modulation)(config, plain, widths)

    def init(key: jax.Array) -> Theta:
        own_key, encoder_key, modulator_key = jax.random.split(key, 3)
        theta = component.init(own_key)
        if encoder:
            theta[ENCODER] = init_trunk(encoder, encoder_key)
        if MODULATOR in theta and modulator_encoder:
            drawn = init_trunk(modulator_encoder, modulator_key)
            theta[MODULATOR] = {**theta[MODULATOR], ENCODER: drawn}
        return theta

    def sense(theta: Theta, inputs: jax.Array) -> tuple[Any, jax.Array]:
        flat = inputs.reshape(inputs.shape[0], -1)
        if encoder:
            features = run_trunk(encoder, theta[ENCODER], inputs)
        else:
            features = network.ahead(theta[WEIGHTS], inputs if kind.on_images else flat)
        if MODULATOR not in theta:
            return jnp.zeros((len(flat), 0)), features
        own = theta[MODULATOR]
        codes = flat
        if modulator_encoder:
            codes = run_trunk(modulator_encoder, own[ENCODER], inputs)
        if component.in_advance is not None:
            return component.in_advance(own[HEADS], codes), features
        return codes, features

    parts = jax.eval_shape(lambda: init(jax.random.key(0)))
    recommended = (*component.recommended, ENCODER, MODULATOR)
    for name in config.meta_learned:
        check_known("part of theta", name, parts)
        if not jax.tree.leaves(parts[name]):
            raise UserError(f"{name} is empty under these settings: leave it out of meta_learned.")
    for name in config.not_meta_learned:
        check_known("part of theta", name, {*parts, *PARTS})
    names = config.meta_learned or tuple(
        name for name in recommended if name in parts and name not in config.not_meta_learned
    )
    if not names:
        raise UserError(
            f"Nothing is meta-learned, since not_meta_learned is {config.not_meta_learned}: leave "
            "out a part that is to be learned."
        )
    inverted = config.remat == "reconstruct" and component.learner.inverse is not None
    needs = component.needs if inverted else None
    return Composition(
        init, component.learner, sense, names, network.forget, needs, component.prepare
    )


def check_network(
    config: ComposeConfig, component: Component, stream: Stream, *, on_images: bool
) -> None:
    """Raise UserError where the network that a config names does not fit to learner and stream.

    on_images: whether it takes images, and not the features of an encoder.
    """
    if config.network == PERCEPTRON:
        return
    if component.network is None:
        raise UserError(
            f"The learner {config.learner} changes a perceptron, not the network {config.network}: "
            "take sgd or adam, or the network perceptron."
        )
    refuse_settings(config, f"network {config.network}", "units", "initial")
    if not on_images:
        return
    refuse_settings(config, f"network {config.network}", "encoder", "beta")
    if not (isinstance(stream, ImageStream) and stream.shape == (SIDE, SIDE)):
        raise UserError(
            f"The network {config.network} takes images of {SIDE}x{SIDE}, which {config.stream} "
            "does not have: take the network perceptron."
        )


def check_vector(config: ComposeConfig, environment: Environment) -> int:
    """Return the length of an environment's observations. Raises UserError unless it has one."""
    if len(environment.observation_shape) != 1:
        raise UserError(
            f"The observations of {config.stream} are of shape {environment.observation_shape}, "
            "but a perceptron takes vectors: choose another stream."
        )
    return environment.observation_shape[0]


def find_trunk(setting: str, encoder: str, channels: int, stream: ImageStream) -> Trunk | None:
    """Return the convolutions that encode a stream's images; None: their pixels are taken.

    Args:
        setting: name of the encoder in the config, for the message.
        encoder, channels: its kind and width.
        stream: of images.

    Raises:
        UserError: the images are too small or large for the convolutions.
    """
    if encoder == "pixels":
        return None
    if stream.shape != (SIDE, SIDE):
        height, width = stream.shape
        raise UserError(
            f"{setting} is conv, whose images are {SIDE}x{SIDE}, but the stream's are "
            f"{height}x{width}: take pixels."
        )
    return Trunk(channels, MICROBATCH)


def init_trunk(trunk: Trunk, key: jax.Array) -> Any:
    """Return parameters of convolutions, without running them."""
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 1), jnp.float32)
    return trunk.lazy_init(key, image)["params"]


def run_trunk(trunk: Trunk, params: Any, images: jax.Array) -> jax.Array:
    """Return the features [N, 9 * channels] of images [N, 28, 28, 1]."""
    features: Any = trunk.apply({"params": params}, images)
    return jnp.asarray(features)
