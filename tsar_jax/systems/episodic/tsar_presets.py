"""Presets of the meta-training of TSAR and the baselines that it is compared with."""

from tsar_jax.systems.episodic.tsar import TsarConfig
from tsar_jax.training.preset import Preset

EXPERIMENT = "tsar_meta_train"
"""Script of the meta-training, whose name its runs carry."""

CPU = TsarConfig(
    channels=32,
    regulator_channels=48,
    steps=2000,
    meta_rate=3e-3,
    eval_every=500,
    checkpoint_every=500,
    eval_runs=2,
    eval_rates=(2e-3, 8e-3),
)
PRESETS = {
    "cpu": Preset(CPU, "22 M parameters, 2 CPU cores"),
    "smoke": Preset(
        TsarConfig(
            channels=8,
            regulator_channels=8,
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
        TsarConfig(
            pixels="byte-normalised",
            repeat_first=True,
            steps=25_000,
            chunk=10,
            eval_every=5000,
            checkpoint_every=1000,
            keep=2,
            eval_runs=1,
            eval_rates=(1e-3,),
        ),
        "as published: 590 M parameters, 25,000 steps, first order; --order second for the other",
    ),
}
