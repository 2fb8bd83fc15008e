"""The classifiers: ANML, ANML without its gate, and OML.

A network is a chain of named levels. Each level has one subtree of parameters, of the same
name, and turns the signals of the level before into its own. Whoever learns only the last
levels can therefore compute the signals of the others once, in batches (`frozen_levels`).
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from tsar_jax.networks.layers import LAST_UNPOOLED, Conv, Trunk, dense

Params = Any
Signals = Any


class Network(nn.Module):
    """Images [N, 28, 28, 1 or 3] -> logits [N, classes], level after level.

    microbatch: images that a convolution takes at a time on a CPU (None: all).
    storable: how many leading levels have signals small enough to keep for a whole data set;
    None: all.
    """

    microbatch: int | None = 4
    levels: ClassVar[tuple[str, ...]] = ()
    storable: ClassVar[int | None] = None

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.run(images)

    def run(self, signals: Signals, first: int = 0, last: int | None = None) -> Signals:
        """Run levels `first` up to, not including, `last`; images are the signals of level 0."""
        for level in self.levels[first:last]:
            signals = self.level(level, signals)
        return signals

    def level(self, name: str, signals: Signals) -> Signals:
        """Run one level on the signals of the level before it."""
        return getattr(self, name)(signals)

    def spaces(self, images: jax.Array) -> dict[str, jax.Array]:
        """Return the representations [N, F] of images by name; "features" is what the head reads.

        A network with other representations overrides this.
        """
        features: jax.Array = self.run(images, 0, len(self.levels) - 1)
        return {"features": features}


class Ungated(Network):
    """A classifier alone, the ablation: ANML's (or, all blocks pooled, TSAR's) trunk and head."""

    channels: int = 256
    classes: int = 1000
    pools: tuple[bool, ...] = LAST_UNPOOLED
    levels: ClassVar[tuple[str, ...]] = ("trunk", "head")

    def setup(self) -> None:
        self.trunk = Trunk(self.channels, self.microbatch, self.pools)
        self.head = dense(self.classes)

    def spaces(self, images: jax.Array) -> dict[str, jax.Array]:
        """The features [N, F] that the head reads."""
        return {"features": self.trunk(images)}


class Neuromodulator(nn.Module):
    """The neuromodulatory network: images [N, 28, 28, C] -> gate [N, gated] between 0 and 1.

    gate_bias: what the gate's biases begin with; sigmoid(-8) = 0.0003 closes it at first.
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
    levels: ClassVar[tuple[str, ...]] = ("neuromodulator", "trunk", "head")

    def setup(self) -> None:
        self.neuromodulator = Neuromodulator(
            self.gate_channels, 9 * self.channels, self.microbatch, self.gate_bias
        )
        self.trunk = Trunk(self.channels, self.microbatch)
        self.head = dense(self.classes)

    def level(self, name: str, signals: Signals) -> Signals:
        """neuromodulator: images -> (images, gate); trunk: -> gated features; head: -> logits."""
        if name == "neuromodulator":
            return signals, self.neuromodulator(signals)
        if name == "trunk":
            images, gate = signals
            return self.trunk(images) * gate
        return self.head(signals)

    def spaces(self, images: jax.Array) -> dict[str, jax.Array]:
        """Gate, features before it, and features after it, each [N, F]."""
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
    levels: ClassVar[tuple[str, ...]] = ("representation", "hidden", "head")

    def setup(self) -> None:
        self.representation = Representation(self.channels, self.microbatch)
        self.hidden = dense(self.hidden_features)
        self.head = dense(self.classes)

    def level(self, name: str, signals: Signals) -> Signals:
        """representation: images -> features; hidden: -> ReLU units; head: -> logits."""
        signals = super().level(name, signals)
        return nn.relu(signals) if name == "hidden" else signals

    def spaces(self, images: jax.Array) -> dict[str, jax.Array]:
        """The representation [N, 9 * channels] and the hidden units [N, hidden] the head reads."""
        representation = self.representation(images)
        return {
            "representation": representation,
            "features": nn.relu(self.hidden(representation)),
        }


def init_params(network: Network, key: jax.Array) -> Params:
    """Fresh parameters: He normal weights, zero biases, unit gains."""
    return network.init(key, jnp.zeros((1, 28, 28, 1)))["params"]


def params_like(network: Network) -> Params:
    """Return the shapes and dtypes of a network's parameters, computing nothing."""
    shapes: Params = jax.eval_shape(lambda key: init_params(network, key), jax.random.key(0))
    return shapes


def frozen_levels(network: Network, plastic: Params) -> int:
    """How many leading levels hold no plastic parameter. plastic: tree of booleans like params."""
    for count, level in enumerate(network.levels):
        if any(jax.tree.leaves(plastic[level])):
            return count
    return len(network.levels)


def stored_levels(network: Network, plastic: Params) -> int:
    """How many leading levels to compute once for a data set: frozen ones, as far as storable."""
    frozen = frozen_levels(network, plastic)
    return frozen if network.storable is None else min(frozen, network.storable)


def run_levels(
    network: Network, params: Params, signals: Signals, first: int = 0, last: int | None = None
) -> Signals:
    """Levels first..last on rows of signals; images are the signals of level 0."""
    return network.apply({"params": params}, signals, first, last, method="run")
