"""Presets of the meta-training of ANML, OML and ANML without its gate."""

import dataclasses

from tsar_jax.systems.episodic.anml import AnmlConfig
from tsar_jax.training.preset import Preset

EXPERIMENT = "anml_meta_train"
"""Script of the meta-training, whose name its runs carry."""

CPU = AnmlConfig(
    channels=64,
    gate_channels=32,
    meta_rate=3e-3,
    steps=3000,
    eval_every=500,
    checkpoint_every=500,
    eval_runs=2,
    eval_rates=(2e-3, 8e-3),
)
# Without norms OML needs a lower rate and all its hidden units to leave its initial plateau: at
# 1e-3 and above, or with 256 hidden units, it was still there after 1,000 steps.
CPU_OML = dataclasses.replace(
    CPU, model="oml", channels=32, hidden_features=1024, meta_rate=5e-4, steps=4000
)
PAPER = AnmlConfig(
    pixels="unit-normalised",
    steps=20_000,
    chunk=100,
    eval_every=2000,
    checkpoint_every=1000,
    eval_classes=200,
)
# In the release's scale images differ by 1e-3 of their mean. ANML's norms take the mean away; OML
# has none, and stays at chance (results/anml), so it takes what the replications do.
PAPER_OML = dataclasses.replace(PAPER, model="oml", pixels="unit")
PRESETS = {
    "cpu": Preset(CPU, "narrow networks (anml, ungated), 2 CPU cores"),
    "cpu-oml": Preset(CPU_OML, "a narrow OML, 2 CPU cores"),
    "smoke": Preset(
        AnmlConfig(
            channels=8,
            gate_channels=8,
            hidden_features=32,
            steps=20,
            chunk=10,
            eval_every=20,
            checkpoint_every=10,
            eval_classes=5,
            eval_runs=2,
        ),
        "tiny networks, 20 steps",
    ),
    "paper": Preset(
        PAPER, "as published: 6.0 M parameters (ANML), 20,000 steps; --order second for the paper's"
    ),
    "paper-oml": Preset(PAPER_OML, "OML as published, but for pixels that it can see"),
}
