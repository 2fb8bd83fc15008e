"""The classifiers: ANML, ANML without its gate, and OML.

A network is a chain of named stages. Each stage has one subtree of parameters, of the same
name, and maps the activations of the stage before to its own. When only the last stages learn,
the activations of the others can be computed once, in batches (`frozen_stages`).
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from tsar_jax.networks.layers import LAST_UNPOOLED, Conv, Trunk, dense

Params = Any
Activations = Any


class Network(nn.Module):
    """Images [N, 28, 28, 1 or 3] -> logits [N, classes], stage after stage.

    microbatch: images that a convolution takes at a time on a CPU (None: all).
    stages: names of the stages, which are the network's submodules.
    storable: number of leading stages whose activations are small enough to keep for a whole data
        set; None: all.
    """

    microbatch: int | None = 4
    stages: ClassVar[tuple[str, ...]] = ()
    storable: ClassVar[int | None] = None

    @property
    def is_divided(self) -> bool:
        """Whether its parameters are divided among several devices."""
        return False

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.run(images)

    def run(self, activations: Activations, first: int = 0, last: int | None = None) -> Activations:
        """Run stages `first` up to, not including, `last`; the input of stage 0 is images."""
        for stage in self.stages[first:last]:
            activations = self.stage(stage, activations)
        return activations

    def stage(self, name: str, activations: Activations) -> Activations:
        """Run one stage on the activations of the stage before it."""
        return getattr(self, name)(activations)

    def representations(self, images: jax.Array) -> dict[str, jax.Array]:
        """Return representations [N, F] of images by name; "features" is the head's input.

        A network with other representations overrides this.
        """
        features: jax.Array = self.run(images, 0, len(self.stages) - 1)
        return {"features": features}


class Ungated(Network):
    """A classifier alone, the ablation: ANML's (or, all blocks pooled, TSAR's) trunk and head."""

    channels: int = 256
    classes: int = 1000
    pools: tuple[bool, ...] = LAST_UNPOOLED
    stages: ClassVar[tuple[str, ...]] = ("trunk", "head")

    def setup(self) -> None:
        self.trunk = Trunk(self.channels, self.microbatch, self.pools)
        self.head = dense(self.classes)

    def representations(self, images: jax.Array) -> dict[str, jax.Array]:
        """Return the features [N, F] that enter the head."""
        return {"features": self.trunk(images)}


class Neuromodulator(nn.Module):
    """The neuromodulatory network: images [N, 28, 28, C] -> gate [N, gated] between 0 and 1.

    gate_bias: initial value of the gate's biases; sigmoid(-8) = 0.0003 closes it at first.
    """

    channels: int
    gated: int
    microbatch: int | None
    gate_bias: float = 0.0

    def setup(self) -> None:
        self.trunk = Trunk(self.channels, self.microbatch)
        self.gate = dense(self.gated, self.gate_bias)

    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.sigmoid(self.gate(self.trunk(images)))


class ANML(Network):
    """Beaulieu et al. (2020): logits = head(trunk(x) * gate(x)). 6.0 M parameters at full width."""

    channels: int = 256
    gate_channels: int = 112
    classes: int = 1000
    gate_bias: float = 0.0
    stages: ClassVar[tuple[str, ...]] = ("neuromodulator", "trunk", "head")

    def setup(self) -> None:
        self.neuromodulator = Neuromodulator(
            self.gate_channels, 9 * self.channels, self.microbatch, self.gate_bias
        )
        self.trunk = Trunk(self.channels, self.microbatch)
        self.head = dense(self.classes)

    def stage(self, name: str, activations: Activations) -> Activations:
        """Run a stage: neuromodulator: images -> (images, gate); trunk: -> gated features; head:
        -> logits.
        """
        if name == "neuromodulator":
            return activations, self.neuromodulator(activations)
        if name == "trunk":
            images, gate = activations
            return self.trunk(images) * gate
        return self.head(activations)

    def representations(self, images: jax.Array) -> dict[str, jax.Array]:
        """Return the gate, features before it, and features after it, each [N, F]."""
        gate, before = self.neuromodulator(images), self.trunk(images)
        return {"gate": gate, "features before gate": before, "features": before * gate}


class Representation(nn.Module):
    """OML's six convolutions: [N, 28, 28, C] -> [N, 9 * channels]."""

    channels: int
    microbatch: int | None
    strides: tuple[int, ...] = (1, 1, 1, 2, 1, 2)

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x, in_channels = images, 3
        for index, stride in enumerate(self.strides):
            x = Conv(self.channels, in_channels, stride, self.microbatch, name=f"conv_{index}")(x)
            in_channels = self.channels
        return x.reshape(x.shape[0], -1)


class OML(Network):
    """Javed and White (2019): a representation (six convolutions), a learner (two dense layers)."""

    channels: int = 256
    hidden_features: int = 1024
    classes: int = 1000
    stages: ClassVar[tuple[str, ...]] = ("representation", "hidden", "head")

    def setup(self) -> None:
        self.representation = Representation(self.channels, self.microbatch)
        self.hidden = dense(self.hidden_features)
        self.head = dense(self.classes)

    def stage(self, name: str, activations: Activations) -> Activations:
        """Run a stage: representation: images -> features; hidden: -> ReLU units; head: ->
        logits.
        """
        activations = super().stage(name, activations)
        return nn.relu(activations) if name == "hidden" else activations

    def representations(self, images: jax.Array) -> dict[str, jax.Array]:
        """Return the representation [N, 9 * channels] and the hidden units [N, hidden] before
        the head.
        """
        representation = self.representation(images)
        return {
            "representation": representation,
            "features": nn.relu(self.hidden(representation)),
        }


def init_params(network: Network, key: jax.Array) -> Params:
    """Return initial parameters: He normal weights, zero biases, unit gains."""
    return network.init(key, jnp.zeros((1, 28, 28, 1)))["params"]


def params_like(network: Network) -> Params:
    """Return the shapes and dtypes of a network's parameters, computing nothing."""
    shapes: Params = jax.eval_shape(lambda key: init_params(network, key), jax.random.key(0))
    return shapes


def forget_classes(params: Params, classes: jax.Array, key: jax.Array) -> Params:
    """Return parameters with the output rows of some classes drawn anew.

    They are He normal over the fan-in; the bias stays. A row depends on the key and its class
    alone, so a class named twice is no ambiguity.

    Args:
        classes: int [n].
    """
    kernel = params["head"]["kernel"]
    scale = jnp.sqrt(2.0 / kernel.shape[0]).astype(kernel.dtype)
    keys = jax.vmap(lambda c: jax.random.fold_in(key, c))(classes)

    def draw_row(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, kernel.shape[:1], kernel.dtype)

    rows = scale * jax.vmap(draw_row)(keys)
    head = {**params["head"], "kernel": kernel.at[:, classes].set(rows.T)}
    return {**params, "head": head}


def frozen_stages(network: Network, plastic: Params) -> int:
    """Return the number of leading stages without plastic parameters.

    plastic: tree of booleans like the parameters.
    """
    for count, stage in enumerate(network.stages):
        if any(jax.tree.leaves(plastic[stage])):
            return count
    return len(network.stages)


def stored_stages(network: Network, plastic: Params) -> int:
    """Return the number of leading stages to compute once for a data set: frozen and storable
    ones.
    """
    frozen = frozen_stages(network, plastic)
    return frozen if network.storable is None else min(frozen, network.storable)


def run_stages(
    network: Network,
    params: Params,
    activations: Activations,
    first: int = 0,
    last: int | None = None,
) -> Activations:
    """Run stages first..last on rows of activations; the input of stage 0 is images."""
    return network.apply({"params": params}, activations, first, last, method="run")
