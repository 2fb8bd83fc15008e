"""The command line: the settings of an experiment, its errors, and `tsar-jax` itself."""

import argparse
import ast
import datetime
import importlib.util
import json
import os
import re
import runpy
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tsar_jax.compile_cache import keep_compiled_programs, silence_compiler
from tsar_jax.errors import (
    DISK_ERRORS,
    FORBIDDEN,
    MAX_MESSAGE,
    UserError,
    bare,
    check_known,
    escaped,
    quoted,
    shown,
)
from tsar_jax.flags import parse_arguments, parse_flags
from tsar_jax.modules import check_allowed, environment_modules, modules_of
from tsar_jax.output import check_printed, outlasting_output
from tsar_jax.pretrained import resolve
from tsar_jax.provenance import version_text
from tsar_jax.terminal import prepare_terminal, use_utf8
from tsar_jax.training import run as run_folder
from tsar_jax.training.config import (
    config_difference,
    config_from_json,
    config_to_json,
    flatten_config,
)
from tsar_jax.training.errors import TrainingDiverged, TrainingInterrupted
from tsar_jax.training.overview import runs_text
from tsar_jax.training.preset import Preset
from tsar_jax.training.run import Run

Config = TypeVar("Config")


def parse(
    config_class: type[Config],
    presets: Mapping[str, Preset[Config]],
    *,
    experiment: str,
    description: str,
    argv: Sequence[str] | None = None,
) -> tuple[Config, Run]:
    """An experiment's settings from its command line: its config and its run.

    --preset NAME (by default the first), --run FOLDER (by default a new
    runs/EXPERIMENT-PRESET-WHAT-DATE-TIME-SEED, WHAT being the config's model, method, stream or
    environment, if any), --resume FOLDER, and a flag for every field of the config. With --resume
    the settings are those stored in the folder.

    experiment: the script's name in the package `experiments`; description: what --help says
    first, with examples. Raises UserError for an unknown preset, a folder that cannot be
    written or holds a run already, or a flag that changes a resumed run's config.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    own, rest = _own_parser().parse_known_args(argv)
    if own.preset is not None:
        _check_preset(own.preset, presets)
    text = _help_text(description, presets)
    if own.resume is not None and "--help" not in rest and "-h" not in rest:
        return _parse_resumed(config_class, own, rest, experiment, text)
    preset = own.preset or next(iter(presets))
    config = parse_config(
        config_class, presets[preset].config, rest, f"run {experiment}", text, OWN_FLAGS
    )
    if own.run is None:
        seed = getattr(getattr(config, "loop", config), "seed", None)
        path = _new_folder(Path("runs"), [experiment, preset, *_distinctive(config)], seed)
    else:
        path = Path(own.run)
    run_folder.check_new(path)
    return config, Run(path, config, experiment, preset)


def parse_for_run(
    config_class: type[Config],
    presets: Mapping[str, Preset[Config]],
    *,
    experiment: str,
    description: str,
    argv: Sequence[str] | None = None,
) -> tuple[Config, Path, str]:
    """Settings of an experiment that works on a finished run: config, run folder, preset's name.

    --run FOLDER is required, --preset NAME is the first by default, and every field of the config
    has a flag. Raises UserError for an unknown preset or where no run is named.
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
    """As `parse_for_run`, of an experiment that writes to --out FOLDER, which is required."""
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
    """about: the option that names a folder, what it is for, and what is wrong without it."""
    option, purpose, missing = about
    argv = sys.argv[1:] if argv is None else list(argv)
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


def _check_preset(name: str, presets: Mapping[str, Preset[Any]]) -> None:
    check_known("preset", name, presets)


OWN_FLAGS = ("preset", "run", "resume")
"""Flags of a training that are no settings of its config."""


def _own_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in OWN_FLAGS:
        parser.add_argument(f"--{name}")
    return parser


def _help_text(description: str, presets: Mapping[str, Preset[Any]]) -> str:
    return "\n".join(
        [
            description.strip(),
            "",
            *_preset_lines(presets),
            "",
            "Runs:",
            f"  --preset NAME    settings to begin with (default: {next(iter(presets))})",
            "  --run FOLDER     where the run is written (default: a new one in runs/)",
            "  --resume FOLDER  continue that run, with its settings, to the same bits",
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
        command: what the user types before the flags; text: what --help says first.
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
        sys.argv[1:],
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
    """The stored config; the flags in `rest` may repeat it, not change it."""
    path = Path(own.resume)
    if own.run is not None:
        raise UserError("--resume names the run folder already: leave out --run.")
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
    config = config_from_json(config_class, stored["config"], str(path / "config.json"))
    rest = _check_modules(path, config, rest)
    asked = parse_config(config_class, config, rest, f"run {experiment}", text, OWN_FLAGS)
    difference = config_difference(config_to_json(config), config_to_json(asked))
    if difference:
        raise UserError(
            f"A resumed run keeps its settings, but these flags change them ({difference}): "
            "leave them out, or start a new run."
        )
    return config, Run(path, config, experiment, preset, resume=True)


def _check_modules(path: Path, config: Any, rest: list[str]) -> list[str]:
    """Return the flags that are left for the config of a resumed run.

    Raises UserError where the run would import modules that the command line does not name, with
    --modules or as part of --environment.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--modules", nargs="*", default=[])
    named, others = parser.parse_known_args(rest)
    parser.add_argument("--environment", default="")
    environment = parser.parse_known_args(rest)[0].environment
    allowed = [*named.modules, *environment_modules(environment)]
    check_allowed(modules_of(config), allowed, path)
    return rest if hasattr(config, "modules") else others


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


def run_main(main: Callable[[], Any]) -> None:
    """Runs a script's `main` as `exit_code` does, and exits with the code unless it is 0.

    In its arguments `pretrained:NAME` stands for a run that comes with the package, and compiled
    programs are kept for the next process.
    """

    def run() -> None:
        silence_compiler()
        keep_compiled_programs()
        if sys.argv[1:2] != ["pretrained"]:  # which takes the name itself
            sys.argv[1:] = map(resolve, sys.argv[1:])
        main()

    code = exit_code(run, hint="; a training goes on with --resume")
    if code:
        raise SystemExit(code)


def exit_code(main: Callable[[], int | None], stopped: str = "stopped", hint: str = "") -> int:
    """Runs `main` and returns its exit code; its errors are told in a sentence on stderr.

    UserError and a disk that cannot be written are 2, TrainingDiverged 1, a signal 128 + its
    number, as Ctrl-C 130 and SIGTERM 143; other exceptions pass through. Neither a reader of the
    output that goes away nor a full disk under it ends `main`.

    Args:
        main: what it returns is the exit code, or None for 0.
        stopped: what is printed after Ctrl-C.
        hint: ends the sentence on a disk that cannot be written.
    """
    use_utf8()
    prepare_terminal()
    with outlasting_output(), warnings.catch_warnings():
        warnings.showwarning = _show_warning
        # A program that cannot be kept or read back is compiled, as without a cache.
        warnings.filterwarnings("ignore", message=".*persistent compilation cache")
        try:
            return main() or 0
        except UserError as error:
            return _told(f"error: {error}", 2)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            if error.errno in FORBIDDEN:  # to be read, it may be
                return _told(
                    f"error: {error.filename or 'A file'} cannot be used ({error.strerror}): "
                    "change its permissions, or name another, and repeat the command.",
                    2,
                )
            return _told(
                f"error: {error.filename or 'A file'} cannot be written ({error.strerror}): make "
                f"room, or name another folder, and repeat the command{hint}.",
                2,
            )
        except (AssertionError, RuntimeError):
            trouble = _missing_platform()
            if not trouble:
                raise
            return _told(f"error: {trouble}", 2)
        except TrainingDiverged as error:
            return _told(f"error: {error}", 1)
        except TrainingInterrupted as error:
            return _told(str(error), 128 + error.signum)
        except KeyboardInterrupt:
            return _told(stopped, 128 + signal.SIGINT)
        finally:
            run_folder.release_folders()


def _missing_platform() -> str:
    """What is wrong with JAX's platform, if this process has asked for one."""
    if "jax" not in sys.modules:
        return ""
    from tsar_jax.devices import missing_platform

    return missing_platform()


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    text = "\n".join(escaped(line, MAX_MESSAGE) for line in str(message).split("\n"))
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _told(message: str, code: int) -> int:
    """Print a message to stderr and return the exit code that goes with it."""
    print(escaped(message, MAX_MESSAGE), file=sys.stderr, flush=True)
    return code


def main() -> None:
    """Run the console command `tsar-jax`."""
    run_main(lambda: command(sys.argv[1:]))


def command(argv: Sequence[str]) -> None:
    """Runs one `tsar-jax` command. Raises UserError for an unknown one, experiment, flag or run."""
    if argv and argv[0] in FILE_COMMANDS:  # whose flags are their own, --help included
        file_command_main(argv[0], argv[1:])
        return
    parser, known = command_parser()
    if argv and not argv[0].startswith("-"):
        check_known("command", argv[0], known)
    arguments = parse_arguments(parser, argv, known)
    if arguments.version:
        print(version_text())
    elif arguments.command is None:
        parser.error(f"a command is required: choose from {', '.join(known)}")
    elif arguments.command == "published":
        from tsar_jax.evaluation.published_text import show_published

        show_published(arguments.selectors, arguments.write)
    elif arguments.command == "claims":
        from tsar_jax.evaluation.claims import show_claims

        show_claims(arguments.write)
    elif arguments.command == "pretrained":
        from tsar_jax.pretrained.listing import listing

        print(listing(arguments.name))
    elif arguments.command == "list":
        print(list_text({name: first_line(path) for name, path in experiments().items()}))
    elif arguments.command == "run":
        run_experiment(arguments.name, arguments.arguments)
    elif arguments.command == "runs":
        print(runs_text(arguments.folder))
    else:
        print(status(arguments.run))
    if arguments.command != "run":
        check_printed()


def command_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of `tsar-jax`, and those of its commands by their names."""
    parser = argparse.ArgumentParser(
        prog="tsar-jax", description="Plasticity that learns to learn: run the experiments."
    )
    parser.add_argument(
        "--version", action="store_true", help="show the versions of this, JAX and Python"
    )
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="list the experiments")
    runner = commands.add_parser(
        "run", help="run an experiment: tsar-jax run NAME --help shows its settings"
    )
    runner.add_argument("name", help="as tsar-jax list shows it")
    runner.add_argument("arguments", nargs=argparse.REMAINDER, help="its settings")
    status_parser = commands.add_parser("status", help="show how far a run is")
    status_parser.add_argument("run", help="the run's folder", type=Path)
    pretrained = commands.add_parser(
        "pretrained", help="list the trained runs that come with this, for --run pretrained:NAME"
    )
    pretrained.add_argument("name", nargs="?", help="show all that is known of one")
    runs_parser = commands.add_parser("runs", help="list runs: state, step and result of each")
    runs_parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs"), help="where they lie (default: runs)"
    )
    published = commands.add_parser(
        "published", help="show published figures, or fill them into Markdown files"
    )
    published.add_argument("selectors", nargs="*", metavar="FIELD=VALUE", help=SELECTOR_HELP)
    published.add_argument(
        "--write", nargs="+", type=Path, metavar="FILE", help="fill the marked passages of FILE"
    )
    claims = commands.add_parser(
        "claims", help="show what the papers claim beside this project's results"
    )
    claims.add_argument(
        "--write", action="store_true", help="compute them anew and fill the README's table"
    )
    for name, about in FILE_COMMANDS.items():
        file_command = commands.add_parser(name, add_help=False, help=about)
        file_command.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser, commands.choices


SELECTOR_HELP = (
    "which figures, as in stream=rot-mnist method=er,der; fields: system (anml, learned_rules, "
    "hebbian, continual), stream, method, size, measure, source (primary, third_party, unverified)"
)


FILE_COMMANDS = {
    "import": "make a run of a release's weights: tsar-jax import --help shows how",
    "export": "write a run's weights as a release's file: tsar-jax export --help shows how",
}


def file_command_main(name: str, argv: Sequence[str]) -> None:
    """Runs `tsar-jax import` or `tsar-jax export`. Raises UserError."""
    import_experiments()
    importlib.import_module(f"experiments._{name}_weights").main(argv)


EXPERIMENTS = Path(__file__).parent.parent / "experiments"
"""The package of the scripts, which lies beside this one in a clone and where it is installed."""


def experiments() -> dict[str, Path]:
    """Return the scripts of the package `experiments` by name.

    Raises:
        UserError: the package cannot be found.
    """
    if not (EXPERIMENTS / "__init__.py").is_file():
        raise UserError(
            "The package `experiments` cannot be found: run pip install -e . in the repository."
        )
    return {path.stem: path for path in sorted(EXPERIMENTS.glob("[!_]*.py"))}


def first_line(script: Path) -> str:
    """Return the first line of a script's docstring; it is read, not imported."""
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def import_experiments() -> None:
    """Import the package `experiments` from beside this one, whatever else has its name.

    A folder called `experiments` where the user works would come first on Python's path.
    """
    present = sys.modules.get("experiments")
    if present is not None and str(EXPERIMENTS) in getattr(present, "__path__", ()):
        return
    spec = importlib.util.spec_from_file_location(
        "experiments", EXPERIMENTS / "__init__.py", submodule_search_locations=[str(EXPERIMENTS)]
    )
    assert spec is not None
    assert spec.loader is not None
    for name in [name for name in sys.modules if name.startswith("experiments.")]:
        del sys.modules[name]
    sys.modules["experiments"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["experiments"])


def list_text(found: Mapping[str, str]) -> str:
    """One line per experiment."""
    width = max(map(len, found), default=0)
    return "\n".join(f"{name:{width}}  {line}".rstrip() for name, line in found.items())


def run_experiment(name: str, argv: Sequence[str]) -> None:
    """Runs the script `experiments/NAME.py` as if by `python`. Raises UserError if unknown."""
    found = experiments()
    check_known("experiment", name, found)
    sys.argv = [f"tsar-jax run {name}", *argv]
    import_experiments()
    # alter_sys: tyro reads the help of settings from the source of sys.modules["__main__"].
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)


MAX_LINES = 200
"""Settings that `tsar-jax status` shows."""


def status(path: Path) -> str:
    """How far a run is, from whatever its folder holds. Raises UserError if it holds no run."""
    from tsar_jax.training.metrics import read_last_rows

    if not path.is_dir():
        raise UserError(f"There is no run folder {path}: check the path.")
    if not any(os.path.lexists(path / name) for name in RUN_PARTS):
        raise UserError(f"{path} is not a run folder, for it has no config.json: check the path.")
    trouble = []
    try:
        stored = run_folder.read_description(path)
    except UserError as error:
        stored, trouble = {}, [f"config       {error}"]
    try:
        rows = read_last_rows(path)
    except UserError as error:
        rows, trouble = [], [*trouble, f"metrics      {error}"]
    checkpoints = path / "checkpoints"
    steps = run_folder.checkpoint_steps(checkpoints)
    trouble += [
        f"checkpoints  {odd.name[:80]!r} is no step, and is moved when the run is resumed"
        for odd in run_folder.odd_steps(checkpoints)[:3]
    ]
    if os.path.lexists(checkpoints) and not checkpoints.is_dir():
        trouble.append(f"checkpoints  {checkpoints} is no folder: move it away")
    step = max([row["step"] for row in rows] + steps, default=0)
    total = stored.get("steps")
    done = bool(steps) and steps[-1] == total
    experiment = stored.get("experiment") or "unknown"
    lines = [
        f"run          {path}",
        f"experiment   {bare(experiment)}, preset {bare(stored.get('preset'))}",
        f"step         {step} of {bare(total) if total is not None else 'unknown'}",
        f"finished     {'yes' if done else f'no; continue with --resume {quoted(path)}'}",
        f"checkpoints  {', '.join(map(str, steps[-20:])) or 'none'}",
        *_last_lines(rows),
        *trouble,
    ]
    settings = list(flatten_config(stored.get("config", {})).items())
    lines += ["config"] if stored else []
    lines += [f"  {bare(name)} = {json.dumps(value)}" for name, value in settings[:MAX_LINES]]
    lines += [f"  and {len(settings) - MAX_LINES} more"] if len(settings) > MAX_LINES else []
    return "\n".join(escaped(line, MAX_MESSAGE) for line in lines)


RUN_PARTS = ("config.json", "metrics.jsonl", "checkpoints")


def _last_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    from tsar_jax.training.metrics import LEADING_COLUMNS

    lines = []
    for split in ("train", "eval"):
        last = next((row for row in reversed(rows) if row["split"] == split), None)
        if last is not None:
            names = [name for name in last if name not in LEADING_COLUMNS]
            text = "  ".join(f"{bare(name)} {last[name]}" for name in names)
            lines.append(f"last {split:5}   step {last['step']}  {text}")
    return lines
