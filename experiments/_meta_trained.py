"""What the experiments on meta-trained networks share: Omniglot on the device, and their runs."""

from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp

from tsar_jax.data import load
from tsar_jax.errors import UserError
from tsar_jax.meta.low_precision import widen
from tsar_jax.systems.episodic import State
from tsar_jax.training.checkpoints import load_checkpoint
from tsar_jax.training.run import load_config, read_description
from tsar_jax.training.system import System

Config = TypeVar("Config")


def load_omniglot() -> dict[str, jax.Array]:
    """Omniglot on the device, uint8 [classes, 20, 28, 28] per split."""
    return {name: jnp.asarray(s.images) for name, s in load("omniglot").splits.items()}


def read_run(path: Path, experiment: str, config_class: type[Config]) -> Config:
    """The config of a run of an experiment; UserError for any other folder."""
    if not path.is_dir():
        raise UserError(f"There is no run folder {path}: check the path.")
    found = read_description(path).get("experiment")
    if found != experiment:
        raise UserError(f"{path} is a run of {found!r}, not of {experiment!r}.")
    return load_config(path, config_class)


def load_state(path: Path, system: System, step: int | None) -> tuple[State, int]:
    """The state in a run's checkpoint, by default the newest usable one, and its step.

    All in float32, whatever it was trained in.
    """
    like = jax.eval_shape(system.init, jax.random.key(0))
    state, found = load_checkpoint(path, step, like=like)
    return widen(state), found
