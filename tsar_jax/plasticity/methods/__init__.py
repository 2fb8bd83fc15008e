"""Continual-learning methods by name: one file each.

A method of your own is a subclass of `Method` that a module registers in `METHODS`.
"""

from typing import Any

from tsar_jax.plasticity.methods.agem import AGEM
from tsar_jax.plasticity.methods.agem_r import AGEMR
from tsar_jax.plasticity.methods.base import Batch, Method, ProblemSpec, TaskData, TrainState
from tsar_jax.plasticity.methods.clser import CLSER
from tsar_jax.plasticity.methods.der import DER, DERPlusPlus
from tsar_jax.plasticity.methods.er import ER
from tsar_jax.plasticity.methods.ewc_on import EWCOn
from tsar_jax.plasticity.methods.fdr import FDR
from tsar_jax.plasticity.methods.gem import GEM
from tsar_jax.plasticity.methods.gss import GSS
from tsar_jax.plasticity.methods.hal import HAL
from tsar_jax.plasticity.methods.icarl import ICaRL
from tsar_jax.plasticity.methods.kder import KDER
from tsar_jax.plasticity.methods.lwf import LwF
from tsar_jax.plasticity.methods.mer import MER
from tsar_jax.plasticity.methods.pnn import PNN
from tsar_jax.plasticity.methods.settings import given_settings, open_settings
from tsar_jax.plasticity.methods.sgd import SGD, Joint
from tsar_jax.plasticity.methods.si import SI
from tsar_jax.plasticity.methods.synergy import SYNERgy
from tsar_jax.registry import Registry

__all__ = [
    "METHODS",
    "Batch",
    "Method",
    "ProblemSpec",
    "TaskData",
    "TrainState",
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
