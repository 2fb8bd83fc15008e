"""Hebbian rules with a set of coefficients for every synapse.

Najarro and Risi (2020), arXiv 2007.02686. A synapse from a unit of activity o_i to one of activity
o_j changes, after every step of the environment, by

    dw = eta (A o_i o_j + B o_i + C o_j + D)

and evolution finds A, B, C, D and eta. Smaller rules leave some of them out.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.errors import check_known
from tsar_jax.networks.types import LayerArrays


class HebbianRule(NamedTuple):
    """A rule by the coefficients of a synapse.

    columns: names of the coefficients, in the order in which the release stores them. outside: name
    of the coefficient that is added at no rate; "": none, D is multiplied by eta like the other
    terms.
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
"""Published rules by the release's names."""


def find_rule(name: str) -> HebbianRule:
    """Return the rule of a name. Raises UserError for an unknown one."""
    check_known("Hebbian rule", name, RULES)
    return RULES[name]


def draw_coefficients(
    rule: HebbianRule,
    draw: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    key: jax.Array,
    shapes: Sequence[tuple[int, int]],
    *,
    scale: float,
) -> LayerArrays:
    """Draw a rule's coefficients before the first generation, each layer's from a key of its own.

    Args:
        rule: with k columns.
        draw: distribution, (key, shape) -> array.
        key: root of the layers' keys.
        shapes: of each layer's coefficients, (out, in), or (1, 1) where its synapses share them.
        scale: factor of all.

    Returns:
        Per layer, float [k, *shape].
    """
    keys = jax.random.split(key, len(shapes))
    return tuple(
        scale * draw(k, (len(rule.columns), *shape)) for k, shape in zip(keys, shapes, strict=True)
    )


def without_rate(rule: HebbianRule) -> HebbianRule:
    """Return the rule for the coefficients of `multiply_rates`: those of A, B, C and D that it
    has.
    """
    return HebbianRule(tuple(name for name in rule.columns if name not in ("eta", "D_out")))


def multiply_rates(rule: HebbianRule, coefficients: jax.Array) -> jax.Array:
    """Return coefficients [k', out, in] with which `without_rate(rule)` makes the same changes.

    eta is multiplied into the terms that it scales, and the terms that then do not depend on
    activities become one D. A lifetime that does this once has less to read at every step.

    Args:
        rule: with k columns.
        coefficients: float [k, out, in].
    """
    by_name = dict(zip(rule.columns, coefficients, strict=True))
    eta = by_name.get("eta", 1)
    scaled = {name: c if name == rule.outside else eta * c for name, c in by_name.items()}
    if "D_out" in scaled:
        scaled["D"] += scaled["D_out"]
    return jnp.stack([scaled[name] for name in without_rate(rule).columns])


def hebbian_change(
    rule: HebbianRule, coefficients: jax.Array, pre: jax.Array, post: jax.Array
) -> jax.Array:
    """Return dw [out, in] of one layer.

    Args:
        rule: with k columns.
        coefficients: float [k, out, in].
        pre: activities of the layer's inputs, float [in].
        post: activities of its outputs, float [out].
    """
    chex.assert_shape(coefficients, (len(rule.columns), post.size, pre.size))
    by_name = dict(zip(rule.columns, coefficients, strict=True))
    parts: dict[str, Callable[[jax.Array], jax.Array]] = {
        "A": lambda a: a * (post[:, None] * pre),
        "B": lambda b: b * pre,
        "C": lambda c: c * post[:, None],
        "D": lambda d: d,
        "D_out": lambda d: d,
    }
    inside = functools.reduce(
        operator.add,
        [
            part(by_name[name])
            for name, part in parts.items()
            if name in by_name and name != rule.outside
        ],
    )
    changed = by_name["eta"] * inside if "eta" in by_name else inside
    return changed + by_name[rule.outside] if rule.outside else changed


FOLDS = 16, 8
"""Numbers of parts into which a matrix is folded by rows, one fold after the other, where they
divide its rows.
"""


def normalise(weights: jax.Array) -> jax.Array:
    """Return weights divided by their largest absolute value; weights that are all 0 stay."""
    # Without this barrier XLA recomputes the weights once for the maximum and once for the result.
    weights = lax.optimization_barrier(weights)
    largest = _largest(weights)
    return weights * (1 / jnp.where(largest > 0, largest, 1))


def _largest(weights: jax.Array) -> jax.Array:
    """Return the largest absolute value, [].

    XLA reduces a matrix element by element on a CPU; folded parts are compared as vectors.
    """
    for folds in FOLDS:
        rows, rest = divmod(len(weights), folds)
        if not rest:
            # abs is taken part by part: that of the whole matrix would first be written to memory.
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
    """Return every layer's weights after one step.

    Args:
        rule: with k columns.
        coefficients: per layer, float [k, out, in].
        weights: per layer, float [out, in].
        activities: each layer's inputs, then the outputs.
        normalised: divide each layer by its largest absolute weight.
    """
    chex.assert_equal(len(activities), len(weights) + 1)
    new = tuple(
        w + hebbian_change(rule, c, pre, post)
        for w, c, pre, post in zip(weights, coefficients, activities, activities[1:], strict=False)
    )
    return tuple(map(normalise, new)) if normalised else new
