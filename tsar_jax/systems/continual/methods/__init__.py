"""Continual-learning methods by name: one file each.

A method of your own is a subclass of `Method` that a module registers in `METHODS`.
"""

from typing import Any

from tsar_jax.data.continual.types import Stream
from tsar_jax.errors import UserError
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
from tsar_jax.systems.continual.methods.settings import given_settings, open_settings
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
    "method_settings",
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


def make_method(name: str, **hyper_parameters: bool | int | float) -> Method:
    """Return the method `name` with the given hyper-parameters, the others by its defaults.

    Raises:
        UserError: the method or a hyper-parameter does not exist, or a value is impossible.
    """
    return METHODS.find(name)(**given_settings(method_settings(name, **hyper_parameters)))


def method_settings(name: str, **hyper_parameters: bool | int | float) -> Any:
    """Return hyper-parameters of the method `name` for a config, those not given left open.

    Raises:
        UserError: the method or a hyper-parameter does not exist, or a value is of another type.
    """
    return open_settings(name, METHODS.find(name), hyper_parameters)


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
