"""Hebbian rules with a set of coefficients for every synapse.

Najarro and Risi (2020), arXiv 2007.02686. A synapse from a unit of activity o_i to one of activity
o_j changes, after every step of the environment, by

    dw = eta (A o_i o_j + B o_i + C o_j + D)

and evolution finds A, B, C, D and eta. Lesser rules leave some of them out.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import check_known
from tsar_jax.networks.types import LayerArrays


class HebbianRule(NamedTuple):
    """columns: a synapse's coefficients by name, in the order in which the release stores them.

    D is learned at the rate eta like the other terms, unless `outside` names the coefficient that
    is added at no rate.
    """

    columns: tuple[str, ...]
    outside: str = ""


RULES = {
    "A": HebbianRule(("A",)),
    "AD": HebbianRule(("A", "D")),
    "AD_lr": HebbianRule(("A", "D", "eta")),
    "ABC": HebbianRule(("A", "B", "C")),
    "ABC_lr": HebbianRule(("A", "B", "C", "eta")),
    "ABCD": HebbianRule(("A", "B", "C", "D")),
    "ABCD_lr": HebbianRule(("A", "B", "C", "eta", "D")),
    "ABCD_lr_D_out": HebbianRule(("A", "B", "C", "eta", "D"), outside="D"),
    "ABCD_lr_D_in_and_out": HebbianRule(("A", "B", "C", "eta", "D", "D_out"), outside="D_out"),
}
"""The published rules by the release's names."""


def find_rule(name: str) -> HebbianRule:
    """Raises UserError for an unknown name."""
    check_known("Hebbian rule", name, RULES)
    return RULES[name]


def without_rate(rule: HebbianRule) -> HebbianRule:
    """The rule that `multiply_rates` makes coefficients for: of A, B, C and D what it has."""
    return HebbianRule(tuple(name for name in rule.columns if name not in ("eta", "D_out")))


def multiply_rates(rule: HebbianRule, coefficients: jax.Array) -> jax.Array:
    """Coefficients [k', out, in] with which `without_rate(rule)` makes the same changes.

    eta is multiplied into what it is the rate of, and what then does not depend on activities is
    one D. A lifetime that does so at its birth has less to read at every step.
    """
    of = dict(zip(rule.columns, coefficients, strict=True))
    rate = of.get("eta", 1)
    rated = {name: c if name == rule.outside else rate * c for name, c in of.items()}
    if "D_out" in rated:
        rated["D"] += rated["D_out"]
    return jnp.stack([rated[name] for name in without_rate(rule).columns])


def hebbian_change(
    rule: HebbianRule, coefficients: jax.Array, pre: jax.Array, post: jax.Array
) -> jax.Array:
    """dw [out, in] of one layer. coefficients [k, out, in], pre [in], post [out]."""
    chex.assert_shape(coefficients, (len(rule.columns), post.size, pre.size))
    of = dict(zip(rule.columns, coefficients, strict=True))
    parts: dict[str, Callable[[jax.Array], jax.Array]] = {
        "A": lambda a: a * (post[:, None] * pre),
        "B": lambda b: b * pre,
        "C": lambda c: c * post[:, None],
        "D": lambda d: d,
        "D_out": lambda d: d,
    }
    inside = functools.reduce(
        operator.add,
        [part(of[name]) for name, part in parts.items() if name in of and name != rule.outside],
    )
    changed = of["eta"] * inside if "eta" in of else inside
    return changed + of[rule.outside] if rule.outside else changed


FOLDS = 16, 8
"""Into how many parts a matrix is folded by rows, and then what is left, where they divide them."""


def normalise(weights: jax.Array) -> jax.Array:
    """Weights over their largest absolute value, which bounds them; weights that are 0 stay."""
    # Else XLA computes the new weights twice, for their maximum and for themselves.
    weights = lax.optimization_barrier(weights)
    largest = _largest(weights)
    return weights * (1 / jnp.where(largest > 0, largest, 1))


def _largest(weights: jax.Array) -> jax.Array:
    """The largest absolute value. XLA finds it one by one on a CPU, and folded as vectors."""
    for folds in FOLDS:
        rows, rest = divmod(len(weights), folds)
        if not rest:
            # Of each part for itself: those of all at once would first be written to memory.
            parts = (jnp.abs(weights[rows * part : rows * (part + 1)]) for part in range(folds))
            weights = functools.reduce(jnp.maximum, parts)
    return jnp.abs(weights).max()


def hebbian_update(
    rule: HebbianRule,
    coefficients: LayerArrays,
    weights: LayerArrays,
    activities: LayerArrays,
    *,
    normalised: bool,
) -> LayerArrays:
    """Every layer's weights after one step. activities: each layer's inputs, then the outputs."""
    chex.assert_equal(len(activities), len(weights) + 1)
    new = tuple(
        w + hebbian_change(rule, c, pre, post)
        for w, c, pre, post in zip(weights, coefficients, activities, activities[1:], strict=False)
    )
    return tuple(map(normalise, new)) if normalised else new
