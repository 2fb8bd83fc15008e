"""Files that transfers leave in a run: their settings, and which of them may be compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tsar_jax.errors import UserError
from tsar_jax.systems.episodic.meta_test import Result
from tsar_jax.systems.episodic.meta_test_results import TRAINED, read_results
from tsar_jax.systems.episodic.transfer_arguments import TransferArguments, names_of_plastic
from tsar_jax.systems.episodic.tsar import TsarConfig, learns_as_published
from tsar_jax.training.config import config_from_json, config_to_json

EARLIER_PLASTIC = {"anml": ("trunk", "head")}
"""Parameters that learned by model, before they were a setting, where they were not those that
learn as published."""

FREE_SETTINGS = ("plastic", "rln", "memory", "seed", "baselines", "step", "number", "name")
"""Settings of a transfer in which compared runs may differ: a comparison names what learned."""

KINDS = {"tsar_transfer": "transfer", "tsar_bias_sweep": "transfer-sweep"}
"""Prefix of the files that hold a script's transfers, by script."""


def read_arguments(stored: Mapping[str, Any], model: str, where: str) -> TransferArguments:
    """Return a transfer's settings from a file's, completed where an earlier version wrote them.

    Args:
        stored: JSON values by name.
        model: the model that was transferred, as `TsarConfig.model` names it.
        where: the file, for an error's sentence.

    Raises:
        UserError: a setting is unknown, missing or impossible.
    """
    if "plastic" not in stored:
        stored = {**stored, "plastic": EARLIER_PLASTIC.get(model)}
    return config_from_json(TransferArguments, stored, where)


def comparable_settings(arguments: TransferArguments) -> dict[str, Any]:
    """Return the settings of a transfer that must agree between compared runs, as JSON values."""
    settings = config_to_json(arguments)
    return {name: value for name, value in settings.items() if name not in FREE_SETTINGS}


class Transfer(NamedTuple):
    """A transfer of a meta-trained network.

    result: the accuracies.
    settings: those that must agree between compared runs, see `comparable_settings`.
    """

    result: Result
    settings: dict[str, Any]


def find_transfer(path: Path, config: TsarConfig, target: str, step: int | None) -> Transfer | None:
    """Return the transfer of a run to a target, as published and of random images.

    Everything but the encoder learned, from what had been meta-trained, class after class: files of
    transfers with iid, reset or other plastic parameters are passed over, and those of another
    checkpoint. Among several, files by tsar_transfer come before those by tsar_bias_sweep, and then
    the one with the shortest name.

    Args:
        path: folder of the run.
        config: the run's.
        target: the domain.
        step: step of the checkpoint. None: the newest.

    Returns:
        The transfer, None where there is none.

    Raises:
        UserError: a file cannot be read.
    """
    for script, kind in KINDS.items():
        files = path.glob(f"{kind}-{target}-random*.json")
        for file in sorted(files, key=lambda file: (len(file.name), file.name)):
            conditions, settings = read_results(file, script)
            stored = settings.get("transfer")
            if not isinstance(stored, Mapping):
                raise UserError(f"{file} lacks its settings: run {script} again.")
            arguments = read_arguments(stored, config.model, str(file))
            if conditions.get(TRAINED) and is_plain(arguments, config, target, step):
                return Transfer(conditions[TRAINED][0], comparable_settings(arguments))
    return None


def is_plain(
    arguments: TransferArguments, config: TsarConfig, target: str, step: int | None
) -> bool:
    """Return whether a transfer is one that `find_transfer` looks for."""
    return (
        (arguments.target, arguments.condition) == (target, "random")
        and not (arguments.iid or arguments.reset)
        and arguments.step in (None, step)
        and learns_as_published(config, names_of_plastic(arguments, config))
    )
