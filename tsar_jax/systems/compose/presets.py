"""Presets of compositions."""

import dataclasses

from tsar_jax.networks.hebbian_network import HIDDEN
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.training.preset import Preset

EXPERIMENT = "compose"
"""Name of the script that meta-trains a composition."""

ANML = ComposeConfig(
    steps=20_000,
    network="anml",
    modulation="activations",
    stream="episodes",
    pixels="unit-normalised",
    not_meta_learned=("rates",),
    channels=256,
    modulator_channels=112,
    outputs=1000,
    classes=1,
    learn=20,
    rate=0.1,
    order="first",
    meta_rate=1e-3,
)
"""ANML as published, in first order as released; OML and TSAR differ from it as follows."""

OML = dataclasses.replace(
    ANML,
    network="oml",
    modulation="none",
    hidden=(1024,),
    # In the release's scale OML, which has no norms, stays at chance: see anml_meta_train.
    pixels="unit",
)

TSAR = dataclasses.replace(
    ANML,
    steps=25_000,
    network="tsar",
    modulation="weights",
    pixels="byte-normalised",
    repeat_first=True,
    channels=112,
    modulator_channels=192,
    modulator_bias=-8.0,
)

F_BIO = ComposeConfig(
    steps=600,
    seeds=20,
    learner="rule",
    stream="emnist",
    encoder="pixels",
    hidden=(170, 130, 100, 70),
    beta=10.0,
    terms=("pseudo_gradient", "ehebb", "oja"),
    initial_coefficient=1e-3,
    classes=5,
    learn=50,
    query=10,
    remat="reconstruct",
    meta_rate=1e-3,
)

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
    "synergy": Preset(
        ComposeConfig(
            steps=1000,
            learner="synergy",
            stream="permuted",
            encoder="pixels",
            hidden=(100, 100),
            replayed=8,
            not_meta_learned=("rates",),
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
    "anml": Preset(ANML, "ANML as published: 6.0 M parameters, 20,000 steps"),
    "oml": Preset(OML, "OML trained ANML's way, 20,000 steps"),
    "tsar": Preset(TSAR, "TSAR as published: 590 M parameters, 25,000 steps"),
    "f-bio": Preset(F_BIO, "the rule F_bio as published: 600 episodes of 20 seeds"),
    "hebbian-cart-pole": Preset(
        HEBBIAN_CART_POLE, "Hebbian cart-pole of hebbian_evolve, 60 generations of 40"
    ),
}
