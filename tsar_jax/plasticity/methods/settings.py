"""Hyper-parameters of a method that may be left open, as a dataclass of their own."""

import dataclasses
import functools
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from tsar_jax.errors import UserError, check_known
from tsar_jax.plasticity.methods.base import Method
from tsar_jax.training.config import config_from_json, earlier

BOOLEANS = {"true": True, "false": False}


def settings_class(method: type[Method]) -> type[Any]:
    """Return the frozen dataclass of a method's hyper-parameters that may be left open.

    Its fields have the names and types of the method's, or None: as published. `described_by` is
    the method, whose docstrings describe them.
    """
    return _settings_class(typing.cast(Any, method))  # mypy takes no type for hashable


@functools.cache
def _settings_class(method: type[Any]) -> type[Any]:
    hints = typing.get_type_hints(method)
    fields = [
        (name, hints[name] | None, dataclasses.field(default=None, metadata=earlier(None)))
        for name in (field.name for field in dataclasses.fields(method))
    ]
    made = dataclasses.make_dataclass(f"{method.__name__}Settings", fields, frozen=True)
    made.__doc__ = f"Hyper-parameters of {method.__name__}; None: as published."
    made.described_by = method  # type: ignore[attr-defined]
    return made


def open_settings(name: str, method: type[Method], given: Mapping[str, Any]) -> Any:
    """Return a method's settings with the given hyper-parameters, all others left open.

    Raises:
        UserError: the method, called `name`, has no such hyper-parameter, or a value is of another
            type.
    """
    known = [field.name for field in dataclasses.fields(method)]
    for key in given:
        if not known:
            raise UserError(f"Method {name} has no hyper-parameters: leave out {key}.")
        check_known(f"hyper-parameter of {name}", key, known)
    return config_from_json(settings_class(method), given, f"method {name}")


def given_settings(settings: Any) -> dict[str, Any]:
    """Return the hyper-parameters that settings, or None, do not leave open."""
    values = {} if settings is None else dataclasses.asdict(settings)
    return {name: value for name, value in values.items() if value is not None}


def from_pairs(method: type[Method], pairs: Sequence[Any]) -> dict[str, Any]:
    """Return hyper-parameters as JSON values, from the "name=value" of runs of earlier versions.

    What is no such pair becomes a value that the reader of the config refuses in its sentence.
    """
    hints = typing.get_type_hints(method)
    values: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = str(pair).partition("=")
        kind = hints.get(name, str)
        try:
            values[name] = BOOLEANS[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            values[name] = text
    return values
