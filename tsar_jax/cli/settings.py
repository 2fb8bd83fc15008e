"""The settings of an experiment from its command line: presets, flags, the run it belongs to."""

import argparse
import datetime
import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tsar_jax.cli.flags import parse_flags
from tsar_jax.errors import (
    UserError,
    bare,
    check_known,
    quoted,
    shown,
)
from tsar_jax.modules import (
    check_allowed,
    environment_modules,
    import_modules,
    named_modules,
)
from tsar_jax.training import run as run_folder
from tsar_jax.training.config import (
    config_difference,
    config_from_json,
    config_to_json,
)
from tsar_jax.training.preset import Preset
from tsar_jax.training.run import Run

if TYPE_CHECKING:
    from tsar_jax import processes

Config = TypeVar("Config")


def parse(
    config_class: type[Config],
    presets: Mapping[str, Preset[Config]],
    *,
    experiment: str,
    description: str,
    argv: Sequence[str] | None = None,
) -> tuple[Config, Run]:
    """Return an experiment's config and its run, from the command line.

    There are --preset NAME (by default the first), --out FOLDER (by default a new
    runs/EXPERIMENT-PRESET-MODEL-DATE-TIME-SEED, in which MODEL stands for the config's model,
    method, stream or environment, if any), --resume FOLDER, and a flag for every field of the
    config. With --resume the settings are those stored in the folder.

    Args:
        config_class: dataclass of the settings.
        presets: by name.
        experiment: name of the script in the package `experiments`.
        description: text that --help begins with, with examples.
        argv: the words of the command line; None: those of the process.

    Raises:
        UserError: the preset or a flag does not exist, the folder cannot be written or holds a run
            already, or a flag changes a resumed run's config.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    own, rest = _own_parser().parse_known_args(argv)
    if own.preset is not None:
        _check_preset(own.preset, presets)
    asks_for_help = "--help" in rest or "-h" in rest
    text = _help_text(description, presets)
    if own.resume is not None and not asks_for_help:
        return _parse_resumed(config_class, own, rest, experiment, text)
    rest = _import_named(config_class, rest)
    preset = own.preset or next(iter(presets))
    config = parse_config(
        config_class, presets[preset].config, rest, f"run {experiment}", text, OWN_FLAGS
    )
    make = functools.partial(_folder, own.out, experiment, preset, config)
    path = _of_first(make) if _join(own) else make()
    return config, Run(path, config, experiment, preset)


def _folder(out: str | None, experiment: str, preset: str, config: Any) -> Path:
    """Return the folder of a new run: `out`, or one of its own in runs/ where it is None.

    Raises:
        UserError: it cannot be written or holds a run already.
    """
    if out is None:
        seed = getattr(getattr(config, "loop", config), "seed", None)
        path = _new_folder(Path("runs"), [experiment, preset, *_distinctive(config)], seed)
    else:
        path = Path(out)
    run_folder.check_new(path, "--out")
    return path


def _of_first(make: Callable[[], Path]) -> Path:
    """Return the folder that the first of several processes makes."""
    from tsar_jax import processes  # here, for it imports JAX

    with processes.noticing_losses("repeat the command."):
        return Path(processes.text_of_first(str(make()) if processes.is_first() else ""))


def parse_for_run(
    config_class: type[Config],
    presets: Mapping[str, Preset[Config]],
    *,
    experiment: str,
    description: str,
    argv: Sequence[str] | None = None,
) -> tuple[Config, Path, str]:
    """Return config, run folder and preset's name of an experiment that works on a finished run.

    There are --run FOLDER, which is required, --preset NAME (by default the first), and a flag for
    every field of the config. Arguments are those of `parse`.

    Raises:
        UserError: the preset or a flag does not exist, or no run is named.
    """
    about = "run", "the run to work on", "No run is named"
    return _parse_with_folder(config_class, presets, experiment, description, argv, about)


def parse_for_output(
    config_class: type[Config],
    presets: Mapping[str, Preset[Config]],
    *,
    experiment: str,
    description: str,
    argv: Sequence[str] | None = None,
) -> tuple[Config, Path, str]:
    """Return the same as `parse_for_run` for an experiment that requires --out FOLDER instead."""
    about = "out", "where everything is written", "No folder is named to write to"
    return _parse_with_folder(config_class, presets, experiment, description, argv, about)


def _parse_with_folder(
    config_class: type[Config],
    presets: Mapping[str, Preset[Config]],
    experiment: str,
    description: str,
    argv: Sequence[str] | None,
    about: tuple[str, str, str],
) -> tuple[Config, Path, str]:
    """Return config, folder and preset's name of an experiment that requires a folder.

    about: name of the option for the folder, its purpose, and what is wrong without it.
    """
    option, purpose, missing = about
    argv = _import_named(config_class, sys.argv[1:] if argv is None else list(argv))
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{option}")
    parser.add_argument("--preset", default=next(iter(presets)))
    own, rest = parser.parse_known_args(argv)
    _check_preset(own.preset, presets)
    text = "\n".join(
        [
            description.strip(),
            "",
            *_preset_lines(presets),
            "",
            f"  --{option} FOLDER     {purpose} (required)",
            f"  --preset NAME    settings to begin with (default: {next(iter(presets))})",
        ]
    )
    config = parse_config(
        config_class,
        presets[own.preset].config,
        rest,
        f"run {experiment}",
        text,
        ("preset", option),
    )
    folder = getattr(own, option)
    if folder is None:
        raise UserError(f"{missing}: add --{option} FOLDER.")
    return config, Path(folder), own.preset


def _import_named(config_class: type[Any], argv: list[str]) -> list[str]:
    """Import the modules that --modules names, and return the words that are left for the config.

    What they register has to be there before a config that names it is made.
    """
    named, others = named_modules(argv)
    import_modules(named)
    fields = getattr(config_class, "__dataclass_fields__", {})
    return argv if "modules" in fields else others


def _check_preset(name: str, presets: Mapping[str, Preset[Any]]) -> None:
    check_known("preset", name, presets)


OWN_FLAGS = (
    *("preset", "out", "resume"),
    *("distributed", "coordinator", "processes", "process"),
)
"""Flags of a training that are no settings of its config."""


def _own_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in OWN_FLAGS:
        action = "store_true" if name == "distributed" else "store"
        parser.add_argument(f"--{name}", action=action)
    return parser


def _join(own: argparse.Namespace) -> bool:
    """Connect this process with the others of its training, if the command line names any.

    Returns:
        Whether it names any.

    Raises:
        UserError: the flags do not fit together, or the others do not come.
    """
    numbered = (own.coordinator, own.processes, own.process)
    given = any(value is not None for value in numbered)
    if own.distributed and given:
        raise UserError(
            "--distributed takes everything from the cluster: leave out --coordinator, --processes "
            "and --process."
        )
    if not own.distributed and not given:
        return False
    from tsar_jax import processes  # here, for it imports JAX

    processes.join(processes.Place() if own.distributed else _checked_place(*numbered))
    return True


def _checked_place(
    coordinator: str | None, count: str | None, number: str | None
) -> "processes.Place":
    """Return the place of a process. Raises UserError where a flag is missing or makes no sense."""
    if coordinator is None or count is None or number is None:
        raise UserError(
            "A process among several needs --coordinator HOST:PORT, --processes N and --process I: "
            "give all three."
        )
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"--coordinator must be HOST:PORT, but is {coordinator!r}.")
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise UserError(
            "--process must be a whole number from 0 to --processes - 1, but is "
            f"{number!r} of {count!r}."
        )
    from tsar_jax.processes import Place

    return Place(coordinator, int(count), int(number))


def _help_text(description: str, presets: Mapping[str, Preset[Any]]) -> str:
    return "\n".join(
        [
            description.strip(),
            "",
            *_preset_lines(presets),
            "",
            "Runs:",
            f"  --preset NAME    settings to begin with (default: {next(iter(presets))})",
            "  --out FOLDER     where the run is written (default: a new one in runs/)",
            "  --resume FOLDER  continue that run, with its settings, to the same bits",
            "  --distributed    one of several processes, as Slurm, MPI or a TPU pod started them",
            "  --coordinator HOST:PORT --processes N --process I",
            "                   process number I of N, the first of which is reached there;",
            "                   tsar-jax launch --processes N run ... starts N on this machine",
            "",
            "Settings:",
        ]
    )


def _preset_lines(presets: Mapping[str, Preset[Any]]) -> list[str]:
    width = max(map(len, presets))
    return [
        "Presets:",
        *(f"  {name:{width}}  {preset.description}" for name, preset in presets.items()),
    ]


def parse_config(
    config_class: type[Config],
    default: Config,
    argv: list[str],
    command: str,
    text: str,
    others: Sequence[str] = (),
) -> Config:
    """Return `default` with the fields that flags in argv change.

    Args:
        command: the words that the user types before the flags, such as "run anml_meta_train".
        text: the text that --help begins with.
        others: names of flags that were taken from argv before.
    """
    return parse_flags(
        config_class,
        argv,
        default=default,
        prog=f"tsar-jax {command}",
        description=text,
        others=others,
    )


def parse_settings(
    settings_class: type[Config], *, experiment: str, description: str | None
) -> Config:
    """Return the settings of an experiment without presets, from its command line."""
    return parse_flags(
        settings_class,
        _import_named(settings_class, sys.argv[1:]),
        prog=f"tsar-jax run {experiment}",
        description=description or "",
    )


def _parse_resumed(
    config_class: type[Config],
    own: argparse.Namespace,
    rest: list[str],
    experiment: str,
    text: str,
) -> tuple[Config, Run]:
    """Return the stored config and the run; flags in `rest` may repeat it, not change it."""
    path = Path(own.resume)
    if own.out is not None:
        raise UserError("--resume names the run folder already: leave out --out.")
    stored = run_folder.read_description(path)
    preset = stored.get("preset", "")
    if stored.get("experiment", "") != experiment:
        raise UserError(
            f"{path} is a run of {shown(stored.get('experiment'))}, not of {experiment!r}: "
            f"resume it with tsar-jax run {quoted(bare(stored.get('experiment')))} "
            f"--resume {quoted(path)}."
        )
    if own.preset not in (None, preset):
        raise UserError(
            f"{path} has the preset {shown(preset)}, not {own.preset!r}: leave out --preset."
        )
    rest = _import_allowed(path, stored["config"], rest)
    _join(own)
    config = config_from_json(config_class, stored["config"], str(path / "config.json"))
    asked = parse_config(config_class, config, rest, f"run {experiment}", text, OWN_FLAGS)
    difference = config_difference(config_to_json(config), config_to_json(asked))
    if difference:
        raise UserError(
            f"A resumed run keeps its settings, but these flags change them ({difference}): "
            "leave them out, or start a new run."
        )
    return config, Run(path, config, experiment, preset, resume=True)


def _import_allowed(path: Path, stored: Mapping[str, Any], rest: list[str]) -> list[str]:
    """Import the modules that --modules names, and return the other flags of a resumed run.

    Args:
        path: the run's folder.
        stored: its config as JSON values.
        rest: words of the command line.

    Raises:
        UserError: the run wants modules that the command line does not name, with --modules or as
            part of --environment; or one cannot be imported.
    """
    named, others = named_modules(rest)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--environment", default="")
    environment = parser.parse_known_args(others)[0].environment
    check_allowed(_wanted_modules(stored), [*named, *environment_modules(environment)], path)
    import_modules(named)
    return others


def _wanted_modules(stored: Mapping[str, Any]) -> list[str]:
    """Return the modules that a config as JSON values, whatever they are, would import."""
    modules, environment = stored.get("modules"), stored.get("environment")
    wanted = (
        [name for name in modules if isinstance(name, str)] if isinstance(modules, list) else []
    )
    return [*wanted, *environment_modules(environment if isinstance(environment, str) else "")]


DISTINCTIVE = ("model", "method", "stream", "environment", "target")
"""Fields of configs that name a run by default."""


def _distinctive(config: Any) -> list[str]:
    """Return what tells a run from others of its experiment and preset, for a folder's name."""
    values = [str(getattr(config, name)) for name in DISTINCTIVE if getattr(config, name, None)]
    return [re.sub(r"[^\w.+-]+", "_", value)[:40] for value in values]


def _new_folder(parent: Path, parts: Sequence[str], seed: int | None) -> Path:
    """Make a folder of its own for a run named after `parts`, the time and its seed, if any."""
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = "-".join(str(part) for part in [*parts, time] if part)
    return run_folder.claim_folder(parent, name + ("" if seed is None else f"-seed{seed}"))
