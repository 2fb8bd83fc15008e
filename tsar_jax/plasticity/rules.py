"""Local plasticity rules: functions of the signals at a synapse that change its weight.

Shervani-Tabar and Rosenbaum (2023), arXiv 2210.16414: a rule is a weighted sum of terms, and its
coefficients are meta-learned. A term is a function of a layer's `Synapses`; a new one is added
from any module:

    @term("anti_hebb")
    def anti_hebb(s):
        return Outer(s.post, s.pre, scale=-1)
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from tsar_jax.errors import UserError, escaped
from tsar_jax.registry import Registry


class Synapses(NamedTuple):
    """One layer's synapses at one update.

    weights [out, in]: W. pre [in], post [out]: activities y_p and y on both sides. pre_error [in],
    post_error [out]: errors e_p and e, sent back through the feedback weights.
    """

    weights: jax.Array
    pre: jax.Array
    post: jax.Array
    pre_error: jax.Array
    post_error: jax.Array


class Outer(NamedTuple):
    """A change of rank one, scale post pre': post [out], pre [in], scale a scalar."""

    post: jax.Array
    pre: jax.Array
    scale: jax.Array | float = 1.0


class Decay(NamedTuple):
    """A change of -rate W; rate: a scalar."""

    rate: jax.Array | float


Term = Callable[[Synapses], Outer | Decay | jax.Array]
"""The change of a layer's weights: Outer or Decay where it is one, else an array [out, in].

Outer and Decay never become a matrix, and a lifetime of them is differentiated several times
faster.
"""

TERMS: Registry[Term] = Registry("term")
"""Every term by name."""

term = TERMS.register


def find_terms(names: Sequence[str]) -> tuple[Term, ...]:
    """Return the terms of these names.

    Raises:
        UserError: a name is unknown or repeated, or there is none.
    """
    if not names:
        raise UserError(f"The rule has no terms: name some of {', '.join(TERMS)}.")
    terms = tuple(TERMS.find(name) for name in names)
    if len(set(names)) < len(names):
        raise UserError(
            f"The rule names a term twice ({escaped(', '.join(names), 300)}): name each once."
        )
    return terms


@term("pseudo_gradient")
def pseudo_gradient(s: Synapses) -> Outer:
    """F0 = -e y_p', the gradient where the feedback weights equal the forward weights."""
    return Outer(s.post_error, s.pre, scale=-1.0)


@term("f1")
def activity_error(s: Synapses) -> Outer:
    """F1 = -y e_p'."""
    return Outer(s.post, s.pre_error, scale=-1.0)


@term("ehebb")
def ehebb(s: Synapses) -> Outer:
    """F2 = -e e_p', Hebb's rule between errors."""
    return Outer(s.post_error, s.pre_error, scale=-1.0)


@term("decay")
def decay(s: Synapses) -> Decay:
    """F3 = -W."""
    del s
    return Decay(rate=1.0)


@term("f4")
def error_everywhere(s: Synapses) -> Outer:
    """F4 = -1 e_p'."""
    return Outer(jnp.ones_like(s.post), s.pre_error, scale=-1.0)


@term("f5")
def scaled_pseudo_gradient(s: Synapses) -> Outer:
    """F5 = -e 1'y y_p'."""
    return Outer(s.post_error, s.pre, scale=-s.post.sum())


@term("f6")
def activity_error_squared(s: Synapses) -> Outer:
    """F6 = -y y' W e_p e_p'."""
    return Outer(s.post, s.pre_error, scale=-s.post @ (s.weights @ s.pre_error))


@term("f7")
def error_scaled_gradient(s: Synapses) -> Outer:
    """F7 = -e y' W e_p y_p'."""
    return Outer(s.post_error, s.pre, scale=-s.post @ (s.weights @ s.pre_error))


@term("f8")
def error_scaled_activity(s: Synapses) -> Outer:
    """F8 = -y y_p' W' e e_p'."""
    return Outer(s.post, s.pre_error, scale=-s.post_error @ (s.weights @ s.pre))


@term("oja")
def oja(s: Synapses) -> Outer:
    """F9 = y y_p' - y y' W, Oja's (1982) subspace rule."""
    return Outer(s.post, s.pre - back_through(s.weights, s.post))


POOL = tuple(TERMS)
"""Names of the published terms, F0 to F9."""


@jax.custom_vjp
def back_through(weights: jax.Array, post: jax.Array) -> jax.Array:
    """Return W' post [in]: `post @ weights`, whose gradient XLA on a CPU would write out
    transposed.
    """
    return post @ weights


def _back_through_forward(weights: jax.Array, post: jax.Array) -> tuple[jax.Array, Any]:
    return post @ weights, (weights, post)


def _back_through_backward(saved: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    weights, post = saved
    return post[:, None] * gradient[None], weights @ gradient


back_through.defvjp(_back_through_forward, _back_through_backward)


class Change(NamedTuple):
    """Change of a layer at one update: W <- (1 - decay) W + sum_r post_r pre_r' + dense.

    post: r vectors [out], pre: r vectors [in]; decay: a scalar and dense: [out, in], or None where
    no term needs it.
    """

    post: tuple[jax.Array, ...]
    pre: tuple[jax.Array, ...]
    decay: jax.Array | None = None
    dense: jax.Array | None = None


def change(terms: Sequence[Term], coefficients: jax.Array, synapses: Synapses) -> Change:
    """Return the sum of the terms' changes, each times its coefficient. coefficients: float
    [terms].

    Outer products that share their left side are added up first: the whole pool is of rank three.
    """
    chex.assert_shape(coefficients, (len(terms),))
    outers: dict[int, tuple[jax.Array, jax.Array]] = {}
    decay_rate = dense = None
    for coefficient, part in zip(coefficients, _parts(terms, synapses), strict=True):
        if isinstance(part, Outer):
            pre = coefficient * part.scale * part.pre
            # Identity of the arrays, because values are not known while tracing.
            _, sum_of_others = outers.get(id(part.post), (part.post, jnp.zeros_like(pre)))
            outers[id(part.post)] = part.post, sum_of_others + pre
        elif isinstance(part, Decay):
            decay_rate = coefficient * part.rate + (0 if decay_rate is None else decay_rate)
        else:
            dense = coefficient * part + (0 if dense is None else dense)
    left, right = zip(*outers.values(), strict=True) if outers else ((), ())
    return Change(left, right, decay_rate, dense)


def _parts(terms: Sequence[Term], synapses: Synapses) -> Iterator[Outer | Decay | jax.Array]:
    """Yield each term's change, with its shape checked."""
    out, into = synapses.weights.shape
    for function in terms:
        part = function(synapses)
        if isinstance(part, Outer):
            chex.assert_shape([part.post, part.pre, jnp.asarray(part.scale)], [(out,), (into,), ()])
        elif not isinstance(part, Decay):
            chex.assert_shape(part, (out, into))
        yield part


def apply_change(weights: jax.Array, changed: Change) -> jax.Array:
    """Return W [out, in] after a change."""
    new = weights if changed.decay is None else (1 - changed.decay) * weights
    new = new if changed.dense is None else new + changed.dense
    return new + low_rank(changed)


def invert_change(weights: jax.Array, changed: Change) -> jax.Array:
    """Return W [out, in] before a change without dense part, from W after it: undo
    `apply_change`.
    """
    before = weights - low_rank(changed)
    return before if changed.decay is None else before / (1 - changed.decay)


def low_rank(changed: Change) -> jax.Array | int:
    """Return sum_r post_r pre_r' [out, in] in one pass: as a product of matrices it would take
    two.
    """
    return sum(a[:, None] * b[None] for a, b in zip(changed.post, changed.pre, strict=True))
