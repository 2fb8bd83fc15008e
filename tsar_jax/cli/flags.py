"""Flags of a config: help in the order of interest, and a wrong name answered with a right one."""

import argparse
import contextlib
import dataclasses
import inspect
import io
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TextIO, TypeVar

from tsar_jax.errors import UserError, nearest, nearest_hint
from tsar_jax.terminal import prepare_terminal
from tsar_jax.training.config import CHOSEN_BY, ChosenBy

Config = TypeVar("Config")

FIRST = (
    *("runs", "rules", "out", "run", "model", "method", "methods", "terms"),
    *("stream", "environment", "target"),
)
LOOP_FIRST = ("steps", "seed")
LOOP_MODULE = "tsar_jax.training.loop"

SYNONYMS: dict[str, tuple[str, ...]] = {
    "rate": ("lr", "learning_rate", "meta_lr", "outer_lr", "step_size", "alpha", "eta"),
    "environment": ("env", "env_id", "env_name", "task", "gym"),
    "stream": ("dataset", "data", "benchmark"),
    "target": ("dataset", "data", "domain"),
    "method": ("algorithm", "algo", "model", "learner"),
    "model": ("network", "net", "architecture", "arch", "method"),
    "buffer": ("buffer_size", "memory_size", "memory"),
    "batch": ("batch_size", "bs", "batchsize"),
    "replay": ("minibatch_size", "minibatch", "replay_batch"),
    "memory": ("remat", "rematerialise", "checkpointing"),
    "steps": ("iterations", "iters", "num_steps", "max_steps", "generations", "episodes", "epochs"),
    "seeds": ("n_seeds", "num_seeds", "repeats"),
    "seed": ("random_seed", "random_state"),
    "population": ("pop", "pop_size", "popsize", "members"),
    "channels": ("width", "filters", "num_filters"),
    "run": ("out", "output", "output_dir", "save_dir", "logdir", "folder", "dir"),
    "out": ("run", "output", "output_dir", "save_dir", "logdir", "folder", "dir"),
    "step": ("checkpoint",),
    "resume": ("restore", "load", "checkpoint", "continue"),
    "preset": ("config", "profile"),
}
"""Names that a field has elsewhere. The last word of a field counts too: meta_rate is a rate."""


def parse_flags(
    config_class: type[Config],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    default: Config | None = None,
    others: Sequence[str] = (),
) -> Config:
    """Return the config that flags make, or change from `default`.

    Args:
        prog: the command line up to the flags.
        description: the text that --help begins with.
        others: names of flags that were taken from argv before.

    Raises:
        UserError: a flag does not exist, or a value is not among the choices.
    """
    import tyro

    prepare_terminal()
    values = {} if default is None else _values(default)
    chosen = _chosen_fields(config_class, argv, values)
    resolved = _with_dataclasses(config_class, chosen)
    names = [*flag_names(resolved), *others]
    check_flags(names, argv, prog)
    _check_choices(resolved, argv)
    ordered = _in_order_of_interest(resolved)
    arguments: dict[str, Any] = {"args": list(argv), "prog": prog, "description": description}
    begin = values | {name: part.default(values.get(name)) for name, part in chosen.items()}
    begin |= {part.chosen_by.field: part.value for part in chosen.values()}
    if begin:
        arguments["default"] = ordered(**begin)
    with _own_sentences():
        parsed, unknown = tyro.cli(ordered, return_unknown_args=True, **arguments)
    if unknown:
        raise UserError(_unknown_flag(unknown[0], names, prog))
    made = _values(parsed)
    made |= {name: part.made(made[name], values.get(name)) for name, part in chosen.items()}
    return config_class(**made)


class _ChosenField(NamedTuple):
    """A field that holds a dataclass which another field chooses (`ChosenBy`).

    chosen_by: as the metadata have it. value: of the other field. part: the dataclass; documented:
    the same with the docstrings of its `described_by`.
    """

    chosen_by: ChosenBy
    value: Any
    part: type[Any]
    documented: type[Any]

    def default(self, default: Any) -> Any:
        """Return what flags change: the field's default, or with another choice nothing given."""
        same = isinstance(default, self.part)
        return self.documented(**(_values(default) if same else {}))

    def made(self, parsed: Any, default: Any) -> Any:
        """Return the field's value; None where it is None by default and no flag changes it."""
        part = self.part(**_values(parsed))
        return None if default is None and part == self.part() else part


def _chosen_fields(
    config_class: type[Any], argv: Sequence[str], values: Mapping[str, Any]
) -> dict[str, _ChosenField]:
    """Return by name the fields whose dataclass another field chooses.

    Args:
        argv: where a flag may set the other field.
        values: of the default config; where it has none, the class has.

    Raises:
        UserError: there is nothing of the name that a flag gives.
    """
    chosen: dict[str, _ChosenField] = {}
    for field in dataclasses.fields(config_class):
        chosen_by = field.metadata.get(CHOSEN_BY)
        if chosen_by is not None:
            other = chosen_by.field
            parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
            parser.add_argument(f"--{other}", nargs="?")
            value = getattr(parser.parse_known_args(list(argv))[0], other)
            value = value or values.get(other, getattr(config_class, other))
            part = chosen_by.class_of(value)
            documented = type(part.__name__, (part, part.described_by), {})
            chosen[field.name] = _ChosenField(chosen_by, value, part, documented)
    return chosen


def _with_dataclasses(
    config_class: type[Config], chosen: Mapping[str, _ChosenField]
) -> type[Config]:
    """Return a config's class with the chosen dataclasses, whose flags begin with the choice."""
    import tyro

    hints = {
        name: Annotated[part.documented, tyro.conf.arg(name=part.chosen_by.field)]
        for name, part in chosen.items()
    }
    return _like(config_class, {"__annotations__": hints}) if hints else config_class


class _Held(io.StringIO):
    """A buffer of text that is taken for a terminal if `stream` is one."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.isatty = stream.isatty  # type: ignore[method-assign]  # colours depend on it


@contextlib.contextmanager
def _own_sentences() -> Iterator[None]:
    """Raise the UserError of a config's part where tyro prints it in a box and exits.

    tyro takes any ValueError of a dataclass within another for a value that it cannot read.
    """
    stderr = sys.stderr
    held = _Held(stderr)
    try:
        with contextlib.redirect_stderr(held):
            yield
    except SystemExit as ended:
        error = ended.__context__
        while error is not None and not isinstance(error, UserError):
            error = error.__context__
        if error is not None:
            held.truncate(0)
            raise error from None
        raise
    finally:
        stderr.write(held.getvalue())


def parse_arguments(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    commands: Mapping[str, argparse.ArgumentParser] | None = None,
) -> argparse.Namespace:
    """Return the arguments that a parser of argparse finds in a command line.

    Args:
        commands: parsers of its commands by name; the argument `command` has the name.

    Raises:
        UserError: a flag does not exist, or a word belongs to none; the nearest flag is named.
    """
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        asked = (commands or {}).get(getattr(arguments, "command", None) or "", parser)
        names = re.findall(r"(?<=--)[\w-]+", asked.format_usage())
        raise UserError(_unknown_flag(unknown[0], names, asked.prog))
    return arguments


def _values(config: Any) -> dict[str, Any]:
    fields = dataclasses.fields(config)
    return {field.name: getattr(config, field.name) for field in fields if field.init}


def _in_order_of_interest(config_class: type[Any]) -> type[Any]:
    """Return the class with its fields in another order: those that tell runs apart, ..., loop."""

    def interest(field: dataclasses.Field[Any]) -> tuple[int, int]:
        # `runs` are folders in some configs and a number of draws, less important, in others.
        if field.name in FIRST and hints[field.name] is not int:
            return 0, FIRST.index(field.name)
        if field.name not in loop_fields:
            return 1, 0
        of_loop = field.name in LOOP_FIRST
        return 2, LOOP_FIRST.index(field.name) if of_loop else len(LOOP_FIRST)

    hints = typing.get_type_hints(config_class)
    loop_fields = {
        name
        for base in config_class.__mro__
        if base.__module__ == LOOP_MODULE
        for name in inspect.get_annotations(base)
    } | {field.name for field in dataclasses.fields(config_class) if field.name == "loop"}
    ordered = sorted(dataclasses.fields(config_class), key=interest)
    return _like(config_class, {"__dataclass_fields__": {field.name: field for field in ordered}})


def _like(config_class: type[Any], members: Mapping[str, Any]) -> type[Any]:
    """Return a subclass that differs in `members` alone, and whose fields' docstrings are found."""
    same = ("__doc__", "__module__", "__qualname__")
    inherited = {name: getattr(config_class, name) for name in same}
    return type(config_class.__name__, (config_class,), {**inherited, **members})


def typed_fields(config_class: type[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every flag's name, such as loop.seed, and its type, without None or Annotated."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        hint, name = hints[field.name], field.name
        chosen_by = field.metadata.get(CHOSEN_BY)
        if chosen_by is not None:
            name = chosen_by.field
            if hint is Any:
                hint = chosen_by.class_of(getattr(config_class, name))
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            others = [kind for kind in typing.get_args(hint) if kind is not type(None)]
            hint = others[0] if len(others) == 1 else hint
        if dataclasses.is_dataclass(hint):
            yield from typed_fields(typing.cast(type[Any], hint), f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def flag_names(config_class: type[Any]) -> list[str]:
    """Return the names of all fields, those of nested configs with a dot."""
    return [name for name, _ in typed_fields(config_class)]


def check_flags(known: Sequence[str], argv: Sequence[str], prog: str) -> None:
    """Raise UserError for a flag that does not exist, even where others are missing."""
    if "--help" in argv or "-h" in argv:
        return
    for word in argv:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if not word.startswith("--") or name.startswith("tyro_"):  # completion of shells
            continue
        plain = ".".join(part.removeprefix("no_") for part in name.split("."))
        if name not in known and plain not in known:
            raise UserError(_unknown_flag(word, known, prog))


def _check_choices(config_class: type[Any], argv: Sequence[str]) -> None:
    """Raise UserError where a flag's value is none of its choices."""
    choices = {
        name: typing.get_args(hint)
        for name, hint in typed_fields(config_class)
        if typing.get_origin(hint) is Literal
    }
    for position, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in choices:
            continue
        if not equals:
            value = argv[position + 1] if position + 1 < len(argv) else ""
        if value and not value.startswith("--") and value not in (*map(str, choices[name]), "None"):
            known = [str(choice) for choice in choices[name]]
            raise UserError(
                f"{flag}: invalid choice {value!r}: choose from {', '.join(known)}"
                f"{nearest_hint(value, known)}."
            )


def _unknown_flag(word: str, known: Sequence[str], prog: str) -> str:
    if not word.startswith("-"):
        return f"{word!r} belongs to no flag: leave it out; {prog} --help shows all flags."
    flag = word.partition("=")[0]
    found = suggest(flag, known)
    near = "" if found is None else f"the nearest is --{found.replace('_', '-')}; "
    return f"There is no flag {flag}: {near}{prog} --help shows all flags."


def suggest(flag: str, known: Sequence[str]) -> str | None:
    """Return the known name that a flag which does not exist is likely to mean, or None."""
    wanted = flag.lstrip("-").removeprefix("no-").replace("-", "_").lower()
    chosen = wanted.rpartition(".")[0]
    if chosen in known:  # as in --method.alpha, a hyper-parameter of the method
        known = [name for name in known if name.startswith(f"{chosen}.")]
    by_last = {name.rpartition(".")[2]: name for name in reversed(known)}
    word = wanted.rpartition(".")[2]
    if word in by_last:
        return by_last[word]
    for meant, synonyms in SYNONYMS.items():
        if word not in synonyms:
            continue
        exact = [name for last, name in by_last.items() if last == meant]
        ends = [name for last, name in by_last.items() if last.endswith(f"_{meant}")]
        if meant == "rate":  # the optimiser's own comes first in a config
            exact += [name for last, name in by_last.items() if last in ("lr", "learning_rate")]
            ends.sort(key=lambda name: "meta" not in name)
        if exact or ends:
            return [*exact, *ends][0]
    last = nearest(word, list(by_last))
    return None if last is None else by_last[last]
