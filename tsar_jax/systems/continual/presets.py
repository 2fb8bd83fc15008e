"""Presets of continual learning."""

import dataclasses

from tsar_jax.systems.continual.system import ContinualConfig
from tsar_jax.training.preset import Preset

EXPERIMENT = "continual_train"
"""Name of the script that runs these trainings."""

PAPER = ContinualConfig(stream="seq-cifar10", chunk=100, checkpoint_every=1000)
DIGITS = ContinualConfig(chunk=100, checkpoint_every=1000)

PRESETS = {
    "cpu": Preset(DIGITS, "SYNERgy on rot-mnist, as published; half a minute on two cores"),
    "packaged": Preset(
        dataclasses.replace(DIGITS, stream="rot-emnist"), "the same on digits that come with this"
    ),
    "smoke": Preset(
        dataclasses.replace(
            DIGITS,
            stream="rot-emnist",
            tasks=2,
            buffer=64,
            replay=32,
            batch=32,
            hidden=(20,),
        ),
        "two tasks of packaged digits, a tiny network",
    ),
    "paper": Preset(PAPER, "SYNERgy on seq-cifar10 with the full ResNet-18; wants a GPU"),
}
