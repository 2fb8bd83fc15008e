"""Frozen dataclasses to JSON and back, every field checked; the difference between two."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from tsar_jax.errors import MAX_MESSAGE, MAX_TEXT, UserError, escaped, shown

Config = TypeVar("Config")

EARLIER, FORMER_NAME, ZERO_IS_NONE = "earlier", "former_name", "zero_is_none"
CHOSEN_BY = "chosen_by"
FORMERLY_ZERO = {ZERO_IS_NONE: True}
"""Metadata of a dataclass field whose None is 0 in run folders of earlier versions."""


def earlier(value: Any) -> dict[str, Any]:
    """Return the metadata of a dataclass field that run folders of earlier versions lack.

    Args:
        value: the field's value in runs made before it existed; reading such a folder fills it in.
    """
    return {EARLIER: value}


def formerly(name: str) -> dict[str, Any]:
    """Return the metadata of a dataclass field that run folders of earlier versions call `name`."""
    return {FORMER_NAME: name}


class ChosenBy(NamedTuple):
    """How another field of a config decides which dataclass a field holds.

    field: name of the field that decides; flags of the dataclass begin with it.
    class_of: (its value, a string) -> the dataclass, which needs no arguments and whose attribute
        `described_by` is a class with docstrings of its fields. Raises UserError where there is
        nothing of the name.
    from_earlier: (its value, JSON value) -> the JSON value, in the form of today.
    """

    field: str
    class_of: Callable[[str], type[Any]]
    from_earlier: Callable[[str, Any], Any]


def chosen_by(
    field: str,
    class_of: Callable[[str], type[Any]],
    from_earlier: Callable[[str, Any], Any],
) -> dict[str, Any]:
    """Return the metadata of a dataclass field whose own dataclass is `ChosenBy` another field."""
    return {CHOSEN_BY: ChosenBy(field, class_of, from_earlier)}


def config_to_json(config: Any) -> dict[str, Any]:
    """Return a dataclass of ints, floats, strings, bools, None, tuples and dataclasses as JSON
    values.
    """
    return {
        field.name: _to_json(getattr(config, field.name)) for field in dataclasses.fields(config)
    }


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return config_to_json(value)
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    return value


def config_from_json(cls: type[Config], stored: Any, where: str = "config.json") -> Config:
    """Return the config that `config_to_json` turned into JSON values.

    A missing field whose metadata `earlier` made has that value.

    Args:
        cls: dataclass of the config.
        stored: JSON values by field.
        where: where they are from, for error messages.

    Raises:
        UserError: a field is unknown, missing or of the wrong type.
    """
    return _dataclass_from_json(cls, stored, where, "")


def with_later_fields(cls: type[Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config with today's names, and the earlier values of later fields.

    Args:
        cls: dataclass of the config; its fields that are dataclasses are completed as well.
        stored: JSON values by field, as `config_to_json` gives them.
    """
    hints = typing.get_type_hints(cls)
    complete = dict(stored)
    for field in dataclasses.fields(cls):
        former_name = field.metadata.get(FORMER_NAME)
        if field.name not in complete and former_name in complete:
            complete[field.name] = complete.pop(former_name)
        if field.name not in complete and EARLIER in field.metadata:
            complete[field.name] = _to_json(field.metadata[EARLIER])
        value = complete.get(field.name)
        if ZERO_IS_NONE in field.metadata and not isinstance(value, bool) and value == 0:
            complete[field.name] = None
        if field.metadata.get(CHOSEN_BY) is not None and complete.get(field.name) is not None:
            chosen_by: ChosenBy = field.metadata[CHOSEN_BY]
            if isinstance(chosen := complete.get(chosen_by.field), str):
                part = chosen_by.from_earlier(chosen, complete[field.name])
                if isinstance(part, Mapping):
                    part = with_later_fields(chosen_by.class_of(chosen), part)
                complete[field.name] = part
        value, hint = complete.get(field.name), hints[field.name]
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
            complete[field.name] = with_later_fields(typing.cast(type[Any], hint), value)
    return complete


def _dataclass_from_json(cls: Any, stored: Any, where: str, prefix: str) -> Any:
    if not isinstance(stored, Mapping):
        name = prefix.rstrip(".") or "the config"
        raise UserError(f"{where}: {name} must be an object of fields, but is {shown(stored)}.")
    stored = with_later_fields(cls, stored)
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    unknown = [name for name in stored if name not in names]
    if unknown:
        raise UserError(f"{where}: unknown field {shown(prefix + unknown[0])}; remove it.")
    missing = [name for name in names if name not in stored]
    if missing:
        raise UserError(f"{where}: field {prefix + missing[0]!r} is missing; add it.")
    values = {name: _from_json(hints[name], stored[name], where, prefix + name) for name in names}
    for field in dataclasses.fields(cls):
        name, chosen_by = field.name, field.metadata.get(CHOSEN_BY)
        if chosen_by is not None and values[name] is not None:
            part = chosen_by.class_of(values[chosen_by.field])
            values[name] = _dataclass_from_json(part, values[name], where, f"{prefix}{name}.")
    return cls(**values)


def _from_json(hint: Any, value: Any, where: str, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong = UserError(f"{where}: {name!r} must be {_type_name(hint)}, but is {shown(value)}.")
    if origin is typing.Annotated:
        return _from_json(arguments[0], value, where, name)
    if hint is Any:
        return value
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise wrong
    if origin in (typing.Union, types.UnionType):
        return _union_from_json(arguments, value, where, name, wrong)
    if dataclasses.is_dataclass(hint):
        return _dataclass_from_json(hint, value, where, name + ".")
    if origin is tuple or hint is tuple:
        return _tuple_from_json(arguments, value, where, name, wrong)
    if hint in (None, type(None)):
        matches = value is None
    elif hint is float:
        matches = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if matches else value
    else:
        matches = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if not matches:
        raise wrong
    if isinstance(value, str) and (len(value) > MAX_MESSAGE or not value.isprintable()):
        # Tables and figures show settings without escaping them.
        raise UserError(f"{where}: {name!r} is {shown(value)}, which no setting is; fix it.")
    return value


def _union_from_json(
    alternatives: tuple[Any, ...], value: Any, where: str, name: str, wrong: UserError
) -> Any:
    for alternative in alternatives:
        try:
            return _from_json(alternative, value, where, name)
        except UserError:
            continue
    raise wrong


def _tuple_from_json(
    arguments: tuple[Any, ...], value: Any, where: str, name: str, wrong: UserError
) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise wrong
    if not arguments:
        return tuple(value)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise wrong
    return tuple(
        _from_json(hint, item, where, f"{name}[{index}]")
        for index, (hint, item) in enumerate(zip(arguments, value, strict=True))
    )


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def flatten_config(stored: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config as one level: {"loop": {"steps": 3}} becomes {"loop.steps": 3}."""
    flat: dict[str, Any] = {}
    for name, value in stored.items():
        if isinstance(value, Mapping):
            flat |= flatten_config(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def config_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the difference between two configs, as "lr: 0.1 -> 0.2, steps: 3 -> 4"; "" if none.

    old, new: JSON values by field.
    """
    olds, news = flatten_config(old), flatten_config(new)
    absent = object()
    return ", ".join(
        f"{escaped(name, MAX_TEXT)}: {shown(olds.get(name, 'absent'))} -> "
        f"{shown(news.get(name, 'absent'))}"
        for name in {**olds, **news}
        if repr(olds.get(name, absent)) != repr(news.get(name, absent))
    )
