"""Presets of compositions."""

from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.training.preset import Preset

EXPERIMENT = "compose"
"""Name of the script that meta-trains a composition."""

PRESETS = {
    "cpu": Preset(
        ComposeConfig(steps=2000, modulation="activations"),
        "SGD under ANML's gate, 2,000 lifetimes of 10 characters",
    ),
    "synergy": Preset(
        ComposeConfig(
            steps=1000,
            learner="synergy",
            stream="permuted",
            encoder="pixels",
            hidden=(100, 100),
            replayed=8,
            meta_learned=("weights",),
        ),
        "initial weights for SYNERgy on three tasks of permuted digits, 1,000 lifetimes",
    ),
    "smoke": Preset(
        ComposeConfig(
            steps=4,
            chunk=2,
            channels=2,
            modulator_channels=2,
            classes=2,
            learn=2,
            query=2,
            outputs=6,
            eval_classes=3,
            eval_lifetimes=2,
            population=4,
            segment=2,
        ),
        "SGD on two characters, 4 lifetimes",
    ),
}
