"""Plasticity that learns to learn: five published systems on one functional core.

A `Learner` changes within a lifetime; `unroll` runs it along a stream. `meta_gradient` and
`es_gradient` estimate the gradient of a loss with respect to meta-learned parameters; an optax
transformation takes steps along either, as in `descend`. `gradient_learner` and `rule_learner` make
learners, `gate_activations` and `regulate_weights` modulate any of them.

Importing the package does not import JAX; the first use of a name below does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsar_jax.errors import UserError
    from tsar_jax.meta.descend import descend
    from tsar_jax.meta.evolution import es_gradient, standardised_ranks
    from tsar_jax.meta.gradient import Estimate, meta_gradient
    from tsar_jax.plasticity.gradient_learner import gradient_learner
    from tsar_jax.plasticity.learner import Inverse, Learner, unroll
    from tsar_jax.plasticity.modulation import Modulated, gate_activations, regulate_weights
    from tsar_jax.plasticity.rule_learner import Rule, RuleTheta, rule_learner
    from tsar_jax.plasticity.rules import Decay, Outer, Synapses, find_terms, term

_MODULES = {
    "errors": ("UserError",),
    "meta.descend": ("descend",),
    "meta.evolution": ("es_gradient", "standardised_ranks"),
    "meta.gradient": ("Estimate", "meta_gradient"),
    "plasticity.gradient_learner": ("gradient_learner",),
    "plasticity.learner": ("Inverse", "Learner", "unroll"),
    "plasticity.modulation": ("Modulated", "gate_activations", "regulate_weights"),
    "plasticity.rule_learner": ("Rule", "RuleTheta", "rule_learner"),
    "plasticity.rules": ("Decay", "Outer", "Synapses", "find_terms", "term"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Decay",
    "Estimate",
    "Inverse",
    "Learner",
    "Modulated",
    "Outer",
    "Rule",
    "RuleTheta",
    "Synapses",
    "UserError",
    "descend",
    "es_gradient",
    "find_terms",
    "gate_activations",
    "gradient_learner",
    "meta_gradient",
    "regulate_weights",
    "rule_learner",
    "standardised_ranks",
    "term",
    "unroll",
]


def __getattr__(name: str) -> Any:
    """Return a public name, from the module that defines it (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
