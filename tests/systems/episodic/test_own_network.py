"""A network of one's own, by the README's recipe, is analysed by what its head reads."""

from typing import ClassVar

import jax
import numpy as np
import pytest
from flax import linen as nn

from tsar_jax.networks import Network
from tsar_jax.networks.episodic import init_params
from tsar_jax.systems.episodic.analysis.representation_analysis import (
    LEARN,
    Analysis,
    MetaTests,
    analyse,
)
from tsar_jax.systems.episodic.meta_test_lifetime import LifetimeSpec

pytestmark = pytest.mark.usefixtures("quickly_compiled")


class Own(Network):
    """Submodules in setup and their names in levels, and no more than the recipe asks for."""

    classes: int = 6
    stages: ClassVar[tuple[str, ...]] = ("hidden", "head")

    def setup(self) -> None:
        self.hidden, self.head = nn.Dense(5), nn.Dense(self.classes)

    def stage(self, name: str, activations: jax.Array) -> jax.Array:
        if name == "hidden":
            return nn.relu(self.hidden(activations.reshape(len(activations), -1)))
        return self.head(activations)


class WithSpaces(Own):
    """One that names a representation which no network of the package has."""

    def representations(self, images: jax.Array) -> dict[str, jax.Array]:
        return {"hidden of my own": self.run(images, 0, 1), **super().representations(images)}


def analysed(network: Network) -> Analysis:
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 28, 28)).astype(np.uint8)
    params = init_params(network, jax.random.key(0))
    spec = LifetimeSpec(4, population=6, learn=LEARN)
    tests = MetaTests(spec, jax.random.split(jax.random.key(1), 1), 1e-3, 2**28)
    return analyse(network, "unit", params, images, np.array([0, 5]), tests)


def test_a_network_of_ones_own_is_analysed() -> None:
    found = analysed(Own())
    assert list(found.measures) == ["features"]
    assert found.examples["features"].shape == (2, 5)
    assert 0 <= found.meta_test["test_accuracy"] <= 1


def test_its_own_representations_are_not_left_out() -> None:
    found = analysed(WithSpaces())
    assert list(found.measures) == ["features", "hidden of my own"]
