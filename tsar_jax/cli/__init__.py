"""The command line: the settings of an experiment, its errors, and `tsar-jax` itself.

A script of `experiments` takes its settings with one of the functions named `parse...` and runs its
`main` with `run_main`.
"""

from tsar_jax.cli.commands import command, main
from tsar_jax.cli.exits import exit_code, run_main
from tsar_jax.cli.settings import (
    parse,
    parse_config,
    parse_for_output,
    parse_for_run,
    parse_settings,
)
from tsar_jax.training.preset import Preset

__all__ = [
    "Preset",
    "command",
    "exit_code",
    "main",
    "parse",
    "parse_config",
    "parse_for_output",
    "parse_for_run",
    "parse_settings",
    "run_main",
]
