"""Linen networks: parameters and images to logits."""

from tsar_jax.networks.episodic import (
    ANML,
    OML,
    Activations,
    Network,
    Params,
    Ungated,
    forget_classes,
    frozen_stages,
    init_params,
    params_like,
    run_stages,
    stored_stages,
)
from tsar_jax.networks.regulated import TSAR

__all__ = [
    "ANML",
    "OML",
    "TSAR",
    "Activations",
    "Network",
    "Params",
    "Ungated",
    "forget_classes",
    "frozen_stages",
    "init_params",
    "params_like",
    "run_stages",
    "stored_stages",
]
