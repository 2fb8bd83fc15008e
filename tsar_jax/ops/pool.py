"""2x2 max pool, and the largest of four products, with gradients to the first of equal maxima."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Return the 2x2 max pool, odd last rows and columns dropped: [N, H, W, C] -> [N, H//2, W//2,
    C].

    The gradient goes to the first of equal maxima. It is found by comparing the four cells, not
    by looking for the maximum among them: XLA may recompute them with other rounding, and then
    none would be equal to it.
    """
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _corners(x: jax.Array) -> list[jax.Array]:
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]


def _winner(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """Return which of four is the largest, 0..3; the first of equals."""
    upper = jnp.maximum(a, b) >= jnp.maximum(c, d)
    return jnp.where(upper, jnp.where(a >= b, 0, 1), jnp.where(c >= d, 2, 3))


def _pool_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return max_pool_2x2(x), x


def _pool_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    n, rows, columns, channels = x.shape
    height, width = rows // 2, columns // 2
    winner = _winner(*_corners(x))
    cell = jnp.arange(4).reshape(1, 1, 2, 1, 2, 1)
    spread = jnp.where(winner[:, :, None, :, None] == cell, gradient[:, :, None, :, None], 0)
    spread = spread.reshape(n, 2 * height, 2 * width, channels)
    return (jnp.pad(spread, ((0, 0), (0, rows - 2 * height), (0, columns - 2 * width), (0, 0))),)


max_pool_2x2.defvjp(_pool_forward, _pool_backward)


@jax.custom_vjp
def largest_product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Return the largest of four products: x [.., 4, K], matrix [K, D] -> [.., D].

    The gradient goes to the first of equal maxima, as in `max_pool_2x2`. It is written out because
    JAX's own gradient of a product transposes the array of the outputs, D wide, before it
    multiplies; here K is the narrow side.
    """
    return (x @ matrix).max(-2)


def _largest_forward(
    x: jax.Array, matrix: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return largest_product(x, matrix), (x, matrix)


def _largest_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, matrix = saved
    products = x @ matrix
    winner = _winner(*(products[..., cell, :] for cell in range(4)))
    spread = jnp.where(winner[..., None, :] == jnp.arange(4)[:, None], gradient[..., None, :], 0)
    axes = tuple(range(x.ndim - 1))
    of_matrix = jnp.tensordot(x, spread, axes=(axes, axes))
    return (spread @ matrix.T).astype(x.dtype), of_matrix.astype(matrix.dtype)


largest_product.defvjp(_largest_forward, _largest_backward)
