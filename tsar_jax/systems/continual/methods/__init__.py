"""Continual-learning methods by name: one file each.

A method of your own is a subclass of `Method` that a module registers in `METHODS`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tsar_jax.data.continual.types import Stream
from tsar_jax.errors import UserError, nearest_hint
from tsar_jax.registry import Registry
from tsar_jax.systems.continual.methods.agem import AGEM
from tsar_jax.systems.continual.methods.agem_r import AGEMR
from tsar_jax.systems.continual.methods.base import Batch, Method, ProblemSpec, TaskData, TrainState
from tsar_jax.systems.continual.methods.clser import CLSER
from tsar_jax.systems.continual.methods.der import DER, DERPlusPlus
from tsar_jax.systems.continual.methods.er import ER
from tsar_jax.systems.continual.methods.ewc_on import EWCOn
from tsar_jax.systems.continual.methods.fdr import FDR
from tsar_jax.systems.continual.methods.gem import GEM
from tsar_jax.systems.continual.methods.gss import GSS
from tsar_jax.systems.continual.methods.hal import HAL
from tsar_jax.systems.continual.methods.icarl import ICaRL
from tsar_jax.systems.continual.methods.kder import KDER
from tsar_jax.systems.continual.methods.lwf import LwF
from tsar_jax.systems.continual.methods.mer import MER
from tsar_jax.systems.continual.methods.pnn import PNN
from tsar_jax.systems.continual.methods.sgd import SGD, Joint
from tsar_jax.systems.continual.methods.si import SI
from tsar_jax.systems.continual.methods.synergy import SYNERgy

__all__ = [
    "METHODS",
    "Batch",
    "Method",
    "ProblemSpec",
    "TaskData",
    "TrainState",
    "check_supported",
    "make_method",
]

METHODS: Registry[type[Method]] = Registry("method")
"""Methods by name; `@METHODS.register("mine")` adds a subclass of `Method`."""
for _name, _method in (
    ("sgd", SGD),
    ("joint", Joint),
    ("er", ER),
    ("der", DER),
    ("derpp", DERPlusPlus),
    ("clser", CLSER),
    ("synergy", SYNERgy),
    ("ewc_on", EWCOn),
    ("si", SI),
    ("lwf", LwF),
    ("agem", AGEM),
    ("agem_r", AGEMR),
    ("gem", GEM),
    ("fdr", FDR),
    ("gss", GSS),
    ("hal", HAL),
    ("icarl", ICaRL),
    ("kder", KDER),
    ("mer", MER),
    ("pnn", PNN),
):
    METHODS.register(_name)(_method)


def make_method(name: str, settings: Sequence[str] = ()) -> Method:
    """Return the method `name` with hyper-parameters given as "name=value", the others by default.

    Raises:
        UserError: the method or a hyper-parameter does not exist, or a value is impossible.
    """
    method = METHODS.find(name)
    known = {field.name: field.type for field in dataclasses.fields(method)}
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in known:
            raise UserError(
                f"{setting!r} sets no hyper-parameter of {name}: write name=value, the name being "
                f"{' or '.join(known) or '(it has none)'}{nearest_hint(key, known)}."
            )
        values[key] = _value(known[key], setting, text)
    return method(**values)


def check_supported(method: Method, name: str, stream: Stream) -> None:
    """Check that a method, called `name`, can learn streams of such a kind.

    Raises:
        UserError: it cannot.
    """
    kind = "cumulative" if stream.cumulative else stream.kind
    if kind in method.kinds:
        return
    able = [name for name, other in METHODS.items() if kind in other.kinds]
    lacks = {
        "general": "it has no task boundaries",
        "cumulative": "its classes come back",
        "domain": "all of its tasks have the same classes",
    }
    because = f", since {lacks[kind]}" if kind in lacks else ""
    raise UserError(
        f"Method {name} cannot learn {stream.name}{because}: choose another stream, or a method "
        f"from {', '.join(able)}."
    )


def _value(kind: Any, setting: str, text: str) -> bool | int | float:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{setting!r}: write true or false, not {text!r}.")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        number = "a whole number" if kind is int else "a number"
        raise UserError(f"{setting!r}: {text!r} is none; write {number}.") from None
