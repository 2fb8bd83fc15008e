"""Presets of compositions."""

from tsar_jax.networks.hebbian_network import HIDDEN
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.training.preset import Preset

EXPERIMENT = "compose"
"""Name of the script that meta-trains a composition."""

# Najarro and Risi (2020), arXiv 2007.02686, as the preset cart-pole of hebbian_evolve, which has 16
# evaluations of two rollouts each.
HEBBIAN_CART_POLE = ComposeConfig(
    steps=60,
    chunk=5,
    eval_every=20,
    checkpoint_every=20,
    learner="hebbian",
    stream="cart_pole",
    meta_optimiser="openai_es",
    hidden=HIDDEN,
    units="tanh",
    initial="uni",
    hebbian_rule="ABCD_lr",
    sharing="synapse",
    distribution="normal",
    scale=1.0,
    meta_descent="sgd",
    meta_rate=0.2,
    meta_rate_decay=0.995,
    min_meta_rate=0.001,
    lifetimes=2,
    population=40,
    sigma=0.1,
    sigma_decay=0.999,
    min_sigma=0.01,
    weight_decay=0.01,
    eval_lifetimes=32,
)

PRESETS = {
    "cpu": Preset(
        ComposeConfig(steps=2000, modulation="activations"),
        "SGD under ANML's gate, 2,000 lifetimes of 10 characters",
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
    "hebbian-cart-pole": Preset(
        HEBBIAN_CART_POLE, "Hebbian cart-pole of hebbian_evolve, 60 generations of 40"
    ),
}
