"""Matrix products in the forms that XLA's CPU backend runs fastest, a microbatch at a time.

The plain forms are `x @ matrix` and `x @ matrix + bias`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.devices import by_platform

Tree = Any


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of number that is at most limit."""
    return next(size for size in range(min(limit, number), 0, -1) if number % size == 0)


def in_microbatches(
    layer: Callable[[Tree, Tree], jax.Array], params: Tree, x: Tree, size: int | None
) -> jax.Array:
    """Return layer(params, x) over the leading axes of x, up to `size` rows at a time; None: all at
    once.

    The backward pass recomputes a microbatch's intermediate arrays, so that they never leave a
    CPU's cache. The microbatch is the largest divisor of the batch up to `size`.
    """
    rows = jax.tree.leaves(x)[0].shape[0]
    if size is None or rows <= size:
        return layer(params, x)
    chunk = largest_divisor(rows, size)
    chunks = jax.tree.map(lambda a: a.reshape(rows // chunk, chunk, *a.shape[1:]), x)
    outputs = lax.map(jax.checkpoint(lambda c: layer(params, c)), chunks)
    return outputs.reshape(rows, *outputs.shape[2:])


@jax.custom_vjp
def product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Return x [.., K] @ matrix [K, D], with a gradient that never transposes arrays of matrix's
    size.

    JAX's own gradient computes matrix's as [D, K] and transposes it; a CPU takes longer over the
    second derivative of that than over the products.
    """
    return x @ matrix


def _product_forward(
    x: jax.Array, matrix: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ matrix, (x, matrix)


def _product_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, matrix = saved
    axes = tuple(range(x.ndim - 1))
    # In 64 bits one of the two may be float32; each gradient has the dtype of its array.
    return (
        jnp.tensordot(gradient, matrix, axes=((-1,), (1,))).astype(x.dtype),
        jnp.tensordot(x, gradient, axes=(axes, axes)).astype(matrix.dtype),
    )


product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def wide_affine(x: jax.Array, matrix: jax.Array, bias: jax.Array) -> jax.Array:
    """Return x [N, K] @ matrix [K, D] + bias [D], for few rows and a matrix that no cache holds.

    A matrix in bfloat16 is multiplied in bfloat16, and summed in the precision of x.

    Forward and backward have the forms in which XLA's CPU backend reads the matrix once and in its
    memory order; it takes up to three times as long over x @ matrix itself, and up to thirty over a
    sum along the leading axis.
    """
    # The barriers here and below keep the compiler from rewriting one form into another.
    columns = lax.optimization_barrier(x.T.astype(matrix.dtype))
    return _dot(columns, matrix, 0, 0, x.dtype) + bias.astype(x.dtype)


def _dot(a: jax.Array, b: jax.Array, axis: int, other: int, dtype: Any) -> jax.Array:
    """Return the product of two matrices over an axis of each."""
    return lax.dot_general(a, b, (((axis,), (other,)), ((), ())), preferred_element_type=dtype)


def _wide_forward(
    x: jax.Array, matrix: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return wide_affine(x, matrix, bias), (x, matrix, bias)


def _wide_backward(
    saved: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, matrix, bias = saved
    dtype = matrix.dtype
    gradient = computed_once(gradient)
    ones = lax.optimization_barrier(jnp.ones(x.shape[0], x.dtype))
    columns = lax.optimization_barrier(_dot(matrix, gradient.astype(dtype), 1, 1, x.dtype))
    # This dependence orders the last use of the matrix before its gradient, so that an optimiser
    # can update the matrix in place.
    rows = (x + 0 * columns.T).astype(dtype)
    of_matrix = _dot(rows, gradient.astype(dtype), 0, 0, dtype)
    return columns.T, of_matrix, (ones @ gradient).astype(bias.dtype)


def computed_once(x: jax.Array) -> jax.Array:
    """Return x, on a CPU in a form that XLA cannot fuse into its uses.

    A fusion with a larger result, such as an outer product, would compute x anew for every element
    of that; XLA's own barrier is removed before fusion. A NaN at the beginning of x becomes NaN in
    all of it.
    """

    def branch(x: jax.Array) -> jax.Array:
        first = x.reshape(-1)[0]
        return lax.cond(first == first, lambda x: x, lambda x: jnp.full_like(x, jnp.nan), x)

    return by_platform(x, cpu=branch, default=lambda x: x)


wide_affine.defvjp(_wide_forward, _wide_backward)
