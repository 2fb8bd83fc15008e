"""Learners of a composition: what changes the weights of a network within a lifetime.

Every one returns as aux of an update the outputs before it. Those that descend a gradient change
any of `compose.networks`; the others the perceptron of `compose.perceptron`, and see an input of
features. One more is a function, registered by a module of yours:

    @LEARNERS.register("mine")
    def mine(config: ComposeConfig, sizes: tuple[int, ...], labelled: bool) -> Component: ...
"""

from tsar_jax.systems.compose.learners import descent, fixed, hebbian, local_rules, replay
from tsar_jax.systems.compose.learners.methods import find_learner
from tsar_jax.systems.compose.learners.types import (
    COEFFICIENTS,
    FEEDBACK,
    LEARNERS,
    RATES,
    WEIGHTS,
    Component,
    Theta,
    plain_component,
)

__all__ = [
    "COEFFICIENTS",
    "FEEDBACK",
    "LEARNERS",
    "RATES",
    "WEIGHTS",
    "Component",
    "Theta",
    "descent",
    "find_learner",
    "fixed",
    "hebbian",
    "local_rules",
    "plain_component",
    "replay",
]
