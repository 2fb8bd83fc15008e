"""3x3 convolutions of stride 1 in Winograd's form, for CPUs: 2.25 times fewer multiplications.

Lavin & Gray (2016), "Fast algorithms for convolutional neural networks", F(2x2, 3x3): a tile
Y [2, 2] of the result is

    Y = A' [(G k G') (B' d B)] A

with d [4, 4] what the tile sees, k [3, 3] the kernel, and the product taken element by element
and summed over channels. So each of the 16 elements is a matrix product of all tiles,
[tiles, C] x [C, D]; and so is each in the kernel's gradient, dk = G' [(B' d B) (A dY A')] G.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.ops.products import computed_once, largest_divisor

Matrix = tuple[tuple[float, ...], ...]

# B', G and A'.
SEEN: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
KERNEL: Matrix = ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1))
MADE: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))

# Values of the images transformed at a time, so that a CPU's cache holds their 16 elements.
MICROBATCH = 2**19


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [N, H, W, C], kernel [3, 3, C, D] -> [N, H, W, D], zero padding of one pixel."""
    return _convolve(x, _matrices(kernel), 0)


def input_gradient(kernel: jax.Array, gradient: jax.Array) -> jax.Array:
    """Gradient of x under `convolve`, from that of its result [N, H, W, D]."""
    matrices = _matrices(kernel)
    # G of a kernel turned over has its first and last row exchanged, and no other change: so the
    # compiler finds that the forward pass has these matrices.
    turned = [matrices[4 * i + j] for i in (3, 1, 2, 0) for j in (3, 1, 2, 0)]
    return _convolve(gradient, turned, 1)


def kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Gradient of kernel [3, 3, C, D] under `convolve`, otherwise as `input_gradient`."""
    inputs = x.shape[-1]
    chunks = _microbatches(x, inputs), _microbatches(gradient, inputs)
    return _summed(_gradient_of_some, *chunks)


def squares(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """sum_n (d_n)^2, d_n being what image n adds to `kernel_gradient`."""
    square = lambda *one: jnp.square(_gradient_of_some(*one))  # noqa: E731
    return _summed(square, x[:, None], gradient[:, None])


def _summed(
    of_some: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, gradient: jax.Array
) -> jax.Array:
    """Sum of a function of some images and gradients [M, H, W, .] over all [N / M, M, H, W, .]."""
    start = jnp.zeros((3, 3, x.shape[-1], gradient.shape[-1]), x.dtype)
    chunks = (x, gradient)
    return lax.scan(lambda total, some: (total + of_some(*some), None), start, chunks)[0]


def _microbatches(x: jax.Array, channels: int) -> jax.Array:
    """x [N, H, W, C] -> [N / M, M, H, W, C], M images having MICROBATCH values in channels."""
    values = x.shape[1] * x.shape[2] * channels
    size = largest_divisor(x.shape[0], max(1, MICROBATCH // values))
    return x.reshape(-1, size, *x.shape[1:])


def _combined(weights: Sequence[float], terms: Sequence[jax.Array]) -> jax.Array:
    """sum_a weights_a terms_a."""
    parts = [t if w == 1 else w * t for w, t in zip(weights, terms, strict=True) if w]
    return functools.reduce(jnp.add, parts)


def _transformed(matrix: Matrix, element: Callable[[int, int], jax.Array]) -> list[jax.Array]:
    """matrix e matrix' of e[i, j] = element(i, j), each an array; row by row."""
    size = range(len(matrix[0]))
    rows = [[_combined(weights, [element(i, j) for i in size]) for j in size] for weights in matrix]
    return [_combined(weights, row) for row in rows for weights in matrix]


def _matrices(kernel: jax.Array) -> list[jax.Array]:
    """G k G' of kernel [3, 3, C, D]: 16 times [C, D]."""
    return _transformed(KERNEL, lambda i, j: kernel[i, j])


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _even(x: jax.Array) -> jax.Array:
    """x [N, H, W, C], with zeros after its last row or column if there are not two to a tile."""
    return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))


def _seen(x: jax.Array) -> list[jax.Array]:
    """B' d B of all tiles of x [N, H, W, C]: 16 times [tiles, C]."""
    even = _even(x)
    _, height, width, channels = even.shape
    # A fusion would pad anew for each of the elements.
    padded = computed_once(jnp.pad(even, ((0, 0), (1, 1), (1, 1), (0, 0))))

    def element(i: int, j: int) -> jax.Array:
        return padded[:, i : i + height - 1 : 2, j : j + width - 1 : 2].reshape(-1, channels)

    return _transformed(SEEN, element)


def _convolve(x: jax.Array, matrices: list[jax.Array], axis: int) -> jax.Array:
    """matrices: 16 times [C, D]. axis: which of the two x's channels are."""
    convolve = functools.partial(_convolve_some, matrices, axis)
    results = lax.map(convolve, _microbatches(x, x.shape[-1]))
    return results.reshape(x.shape[0], *results.shape[2:])


def _convolve_some(matrices: list[jax.Array], axis: int, x: jax.Array) -> jax.Array:
    images, height, width, _ = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    products = [
        jnp.tensordot(seen, matrix, axes=((1,), (axis,)))
        for seen, matrix in zip(_seen(x), matrices, strict=True)
    ]
    outputs = products[0].shape[-1]
    tiles = _transformed(MADE, lambda i, j: products[4 * i + j])
    # Written in place, one after another: a CPU would take longer over their concatenation.
    y = jnp.zeros((images, rows, 2, columns, 2, outputs), x.dtype)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, 2)
        tile = tile.reshape(images, rows, 1, columns, 1, outputs)
        y = lax.dynamic_update_slice(y, tile, (0, 0, row, 0, column, 0))
    return y.reshape(images, 2 * rows, 2 * columns, outputs)[:, :height, :width]


def _gradient_of_some(x: jax.Array, gradient: jax.Array) -> jax.Array:
    outputs = gradient.shape[-1]
    even = _even(gradient)
    made = _transformed(_transposed(MADE), lambda i, j: even[:, i::2, j::2].reshape(-1, outputs))
    products = [seen.T @ tile for seen, tile in zip(_seen(x), made, strict=True)]
    kernel = _transformed(_transposed(KERNEL), lambda i, j: products[4 * i + j])
    return jnp.stack(kernel).reshape(3, 3, x.shape[-1], outputs)
