"""Meta-trained networks: their checkpoints, and the names of parameters that learn."""

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from tsar_jax.networks import Network, params_like
from tsar_jax.ops.mixed_precision import cast_to_float32
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.system import WHOLE, EpisodicConfig, State, Storage, first_state
from tsar_jax.training.checkpoints import load_checkpoint
from tsar_jax.training.initial import init_from_run
from tsar_jax.training.run import Run
from tsar_jax.training.system import System

MAX_NAMES_LENGTH = 60
"""Characters of parameters' names in a file's name, of which file systems take 255 in all."""


def load_state(path: Path, system: System, step: int | None, number: int = 0) -> tuple[State, int]:
    """Return the state in a run's checkpoint, all of it in float32, and the checkpoint's step.

    Args:
        path: folder of the run.
        system: meta-training as the run's config describes it.
        step: step of the checkpoint. None: the newest usable one.
        number: seed of a run of several, counted from 0.
    """
    like = jax.eval_shape(system.init, jax.random.key(0))
    state, loaded_step = load_checkpoint(path, step, like=like, seed=number)
    return cast_to_float32(state), loaded_step


def check_plastic(network: Network, names: Sequence[str]) -> None:
    """Raise UserError where no parameter of the network has one of the names.

    Only shapes are computed.
    """
    if names:
        mask(params_like(network), names)


def join_names(names: Sequence[str]) -> str:
    """Return parameters' names as a part of a file's name, such as trunk+head.gain."""
    joined = "+".join(names).replace("/", ".")
    if len(joined) <= MAX_NAMES_LENGTH:
        return joined
    return f"{len(names)}names{zlib.crc32(joined.encode()):08x}"


def begin_trained(
    config: EpisodicConfig, network: Network, run: Run, storage: Storage = WHOLE
) -> Callable[[jax.Array], State] | None:
    """Return the function that makes a seed's first state from the run that config.init names.

    Args:
        storage: how parameters are kept.

    Returns:
        (key) -> state; None where config.init names no run.

    Raises:
        UserError: a new run's weights do not fit its network.
    """
    return init_from_run(
        config.init,
        "params",
        lambda: params_like(network),
        run,
        lambda params, _: first_state(config, params, storage),
    )
