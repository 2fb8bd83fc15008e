"""Continual-learning methods by name: one file each.

A method of your own is a subclass of `Method` and an entry in `METHODS`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tsar_jax.errors import UserError, check_known
from tsar_jax.plasticity.methods.base import Batch, Bench, Learner, Method, TaskData
from tsar_jax.plasticity.methods.clser import CLSER
from tsar_jax.plasticity.methods.der import DER, DERPlusPlus
from tsar_jax.plasticity.methods.er import ER
from tsar_jax.plasticity.methods.sgd import SGD, Joint
from tsar_jax.plasticity.methods.synergy import SYNERgy

__all__ = ["METHODS", "Batch", "Bench", "Learner", "Method", "TaskData", "make_method"]

METHODS: dict[str, type[Method]] = {
    "sgd": SGD,
    "joint": Joint,
    "er": ER,
    "der": DER,
    "derpp": DERPlusPlus,
    "clser": CLSER,
    "synergy": SYNERgy,
}


def make_method(name: str, settings: Sequence[str] = ()) -> Method:
    """The method `name` with hyper-parameters given as "name=value", the others as by default.

    Raises UserError for a method or a hyper-parameter that does not exist, or a value that will
    not do.
    """
    check_known("method", name, METHODS)
    known = {field.name: field.type for field in dataclasses.fields(METHODS[name])}
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in known:
            raise UserError(
                f"{setting!r} sets no hyper-parameter of {name}: write name=value, the name being "
                f"{' or '.join(known) or '(it has none)'}."
            )
        values[key] = _number(known[key], setting, text)
    return METHODS[name](**values)


def _number(kind: Any, setting: str, text: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{setting!r}: {text!r} is no {kind.__name__}; write a number.") from None
