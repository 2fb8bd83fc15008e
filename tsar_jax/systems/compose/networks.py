"""Networks of a composition, whose weights a learner of gradients changes within a lifetime.

One more is a function, registered by a module of yours:

    @register_network("mine", on_images=True)
    def mine(config: ComposeConfig, sizes: tuple[int, ...]) -> PlasticNetwork: ...
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tsar_jax.errors import UserError
from tsar_jax.networks import (
    OML,
    Network,
    Ungated,
    forget_classes,
    init_params,
    params_like,
    run_stages,
)
from tsar_jax.networks.layers import ALL_POOLED
from tsar_jax.networks.types import LayerArrays
from tsar_jax.plasticity.masks import mask
from tsar_jax.registry import Registry
from tsar_jax.systems.compose.config import PERCEPTRON, ComposeConfig, refuse_settings
from tsar_jax.systems.compose.perceptron import draw_weights, predict

MICROBATCH = 4
"""Images that a convolution takes at a time on a CPU, to stay in its cache."""

Weights = Any


class PlasticNetwork(NamedTuple):
    """A network some of whose weights change within a lifetime.

    init: (key) -> weights, a tuple or dictionary of layers.
    ahead: (weights, inputs [N, ...]) -> activations [N, ...], of the layers that do not change.
    features: (weights, activations) -> features [N, width], which gates may multiply.
    classify: (weights, features) -> logits [N, outputs].
    width: number of features.
    layers: keys in the weights of the layers that change.
    plastic: tree of booleans like the weights, True where they change.
    synapses: tree like the weights, of the shapes of those that a modulation of weights or updates
        acts on; None in place of others.
    forget: (weights, classes [n], key) -> weights whose output rows of these classes are drawn
        anew.
    """

    init: Callable[[jax.Array], Weights]
    ahead: Callable[[Weights, jax.Array], jax.Array]
    features: Callable[[Weights, jax.Array], jax.Array]
    classify: Callable[[Weights, jax.Array], jax.Array]
    width: int
    layers: tuple[Any, ...]
    plastic: Any
    synapses: Any
    forget: Callable[[Weights, jax.Array, jax.Array], Weights]

    def predict(self, weights: Weights, activations: jax.Array) -> jax.Array:
        """Return the logits [N, outputs] of activations [N, ...]."""
        return self.classify(weights, self.features(weights, activations))

    def scale(self, updates: Weights, factors: jax.Array) -> Weights:
        """Return updates, a tree like the weights, with each layer's multiplied by its factor.

        factors: [layers].
        """
        scaled = {
            layer: jax.tree.map(lambda update, f=factor: f * update, updates[layer])
            for layer, factor in zip(self.layers, factors, strict=True)
        }
        if isinstance(updates, tuple):
            return tuple(scaled[layer] for layer in self.layers)
        return {**updates, **scaled}

    def predict_gated(self, weights: Weights, inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Return the logits [N, outputs] of (gates [N, width], activations [N, ...])."""
        gates, activations = inputs
        return self.classify(weights, gates * self.features(weights, activations))


MakeNetwork = Callable[[ComposeConfig, tuple[int, ...]], PlasticNetwork]
"""(config, units of each layer, the inputs first) -> network."""


class NetworkKind(NamedTuple):
    """A kind of network.

    make: see `MakeNetwork`. on_images: whether its inputs are images [N, 28, 28, 1], and not the
        features [N, F] of an encoder.
    """

    make: MakeNetwork
    on_images: bool


NETWORKS: Registry[NetworkKind] = Registry("network")
"""Every kind of network by the name that a config gives it."""


def register_network(name: str, *, on_images: bool) -> Callable[[MakeNetwork], MakeNetwork]:
    """Return a decorator that registers a function (config, sizes) -> network under a name.

    Args:
        name: the name, as config.network gives it.
        on_images: see `NetworkKind`.

    Raises:
        UserError: another module has taken the name.
    """

    def add(make: MakeNetwork) -> MakeNetwork:
        NETWORKS.register(name)(NetworkKind(make, on_images))
        return make

    return add


def forget_rows(
    config: ComposeConfig, weights: LayerArrays, classes: jax.Array, key: jax.Array
) -> LayerArrays:
    """Return a perceptron's weights with the output rows of some classes [n] drawn anew."""
    last = weights[-1]
    (drawn,) = draw_weights(config, key, last.shape[::-1])
    return (*weights[:-1], last.at[classes].set(drawn[classes].astype(last.dtype)))


@register_network(PERCEPTRON, on_images=False)
def perceptron(config: ComposeConfig, sizes: tuple[int, ...]) -> PlasticNetwork:
    """Return a multilayer perceptron without biases, all of whose weights change."""
    return PlasticNetwork(
        init=lambda key: draw_weights(config, key, sizes),
        ahead=lambda weights, inputs: inputs,
        features=lambda weights, inputs: inputs,
        classify=partial(predict, config),
        width=sizes[0],
        layers=tuple(range(len(sizes) - 1)),
        plastic=(True,) * (len(sizes) - 1),
        synapses=synapses_of(sizes),
        forget=partial(forget_rows, config),
    )


def synapses_of(sizes: tuple[int, ...]) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Return the shapes [out, in] of a perceptron's weights by the units of its layers."""
    dtype = jnp.result_type(float)
    pairs = zip(sizes[1:], sizes[:-1], strict=True)
    return tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in pairs)


@register_network("anml", on_images=True)
def anml(config: ComposeConfig, sizes: tuple[int, ...]) -> PlasticNetwork:
    """Return ANML's prediction network: three convolutions and an output layer, all plastic."""
    refuse_settings(config, "network anml", "hidden")
    network = Ungated(MICROBATCH, config.channels, sizes[-1])
    return published(network, 9 * config.channels, ("trunk", "head"))


@register_network("tsar", on_images=True)
def tsar(config: ComposeConfig, sizes: tuple[int, ...]) -> PlasticNetwork:
    """Return TSAR's classifier: as ANML's, but pooled to a single position."""
    refuse_settings(config, "network tsar", "hidden")
    network = Ungated(MICROBATCH, config.channels, sizes[-1], ALL_POOLED)
    return published(network, config.channels, ("trunk", "head"))


@register_network("oml", on_images=True)
def oml(config: ComposeConfig, sizes: tuple[int, ...]) -> PlasticNetwork:
    """Return OML: six convolutions that do not change, and two dense layers that do.

    Raises:
        UserError: there is not one hidden layer.
    """
    if len(config.hidden) != 1:
        raise UserError(
            f"The network oml has one hidden layer, but hidden is {config.hidden}: name one width, "
            "such as 1024."
        )
    (width,) = config.hidden
    return published(OML(MICROBATCH, config.channels, width, sizes[-1]), width, ("hidden", "head"))


def published(network: Network, width: int, plastic: tuple[str, ...]) -> PlasticNetwork:
    """Return a Linen network as one of a composition.

    Args:
        network: its last stage is the output layer.
        width: features that enter the output layer.
        plastic: stages that change within a lifetime, the last ones.
    """
    first, head = len(network.stages) - len(plastic), len(network.stages) - 1
    like = params_like(network)
    changes = mask(like, plastic)

    def synapse(path: Any, leaf: Any, changes: bool) -> Any:
        return leaf if changes and path[-1].key == "kernel" else None

    return PlasticNetwork(
        init=partial(init_params, network),
        ahead=lambda weights, images: run_stages(network, weights, images, 0, first),
        features=lambda weights, inputs: run_stages(network, weights, inputs, first, head),
        classify=lambda weights, features: run_stages(network, weights, features, head),
        width=width,
        layers=plastic,
        plastic=changes,
        synapses=jax.tree_util.tree_map_with_path(synapse, like, changes),
        forget=forget_classes,
    )
