"""Linen networks: parameters and images to logits."""

from tsar_jax.networks.episodic import (
    ANML,
    OML,
    Network,
    Params,
    Signals,
    Ungated,
    frozen_levels,
    init_params,
    params_like,
    run_levels,
    stored_levels,
)
from tsar_jax.networks.regulated import TSAR

__all__ = [
    "ANML",
    "OML",
    "TSAR",
    "Network",
    "Params",
    "Signals",
    "Ungated",
    "frozen_levels",
    "init_params",
    "params_like",
    "run_levels",
    "stored_levels",
]
