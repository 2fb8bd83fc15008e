"""Linen networks: parameters and images to logits."""

from tsar_jax.models.networks import (
    ANML,
    OML,
    Network,
    Ungated,
    frozen_levels,
    init_params,
    run_levels,
)

__all__ = ["ANML", "OML", "Network", "Ungated", "frozen_levels", "init_params", "run_levels"]
