"""3x3 convolutions of stride 1 in Winograd's form, for CPUs: 2.25 times fewer multiplications.

Lavin & Gray (2016), "Fast algorithms for convolutional neural networks", F(2x2, 3x3): a tile
Y [2, 2] of the result is

    Y = A' [(G k G') (B' d B)] A

with d [4, 4] the tile's input, k [3, 3] the kernel, and the product taken element by element
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

# The matrices B', G and A' of the equations above.
INPUT_TRANSFORM: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
KERNEL_TRANSFORM: Matrix = ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1))
OUTPUT_TRANSFORM: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))

# Values of the images transformed at a time, few enough for a CPU's cache to hold their elements.
MICROBATCH = 2**19


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the convolution of x [N, H, W, C], kernel [3, 3, C, D] -> [N, H, W, D], zero padded
    by one.
    """
    return _convolve(x, _matrices(kernel), 0)


def input_gradient(kernel: jax.Array, gradient: jax.Array) -> jax.Array:
    """Return the gradient of x under `convolve`, from that of its result [N, H, W, D]."""
    matrices = _matrices(kernel)
    # Flipping the kernel only exchanges the first and last row of G k G', so that the compiler
    # can reuse the matrices of the forward pass.
    turned = [matrices[4 * i + j] for i in (3, 1, 2, 0) for j in (3, 1, 2, 0)]
    return _convolve(gradient, turned, 1)


def kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Return the gradient of kernel [3, 3, C, D] under `convolve`, otherwise as
    `input_gradient`.
    """
    inputs = x.shape[-1]
    chunks = _microbatches(x, inputs), _microbatches(gradient, inputs)
    return _summed(_gradient_of_some, *chunks)


def squares(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Return sum_n (d_n)^2, d_n being the part of image n in `kernel_gradient`."""
    square = lambda *one: jnp.square(_gradient_of_some(*one))  # noqa: E731
    return _summed(square, x[:, None], gradient[:, None])


def _summed(
    of_some: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, gradient: jax.Array
) -> jax.Array:
    """Sum a function of some images and gradients [M, H, W, .] over all [N / M, M, H, W, .]."""
    start = jnp.zeros((3, 3, x.shape[-1], gradient.shape[-1]), x.dtype)
    chunks = (x, gradient)
    return lax.scan(lambda total, some: (total + of_some(*some), None), start, chunks)[0]


def _microbatches(x: jax.Array, channels: int) -> jax.Array:
    """Reshape x [N, H, W, C] to [N / M, M, H, W, C], M images having MICROBATCH values in
    channels.
    """
    values = x.shape[1] * x.shape[2] * channels
    size = largest_divisor(x.shape[0], max(1, MICROBATCH // values))
    return x.reshape(-1, size, *x.shape[1:])


def _combined(weights: Sequence[float], terms: Sequence[jax.Array]) -> jax.Array:
    """Return sum_a weights_a terms_a."""
    parts = [t if w == 1 else w * t for w, t in zip(weights, terms, strict=True) if w]
    return functools.reduce(jnp.add, parts)


def _transformed(matrix: Matrix, element: Callable[[int, int], jax.Array]) -> list[jax.Array]:
    """Return matrix e matrix' of e[i, j] = element(i, j), each an array; row by row."""
    size = range(len(matrix[0]))
    rows = [[_combined(weights, [element(i, j) for i in size]) for j in size] for weights in matrix]
    return [_combined(weights, row) for row in rows for weights in matrix]


def _matrices(kernel: jax.Array) -> list[jax.Array]:
    """Return G k G' of kernel [3, 3, C, D]: 16 times [C, D]."""
    return _transformed(KERNEL_TRANSFORM, lambda i, j: kernel[i, j])


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _even(x: jax.Array) -> jax.Array:
    """Return x [N, H, W, C] with zeros after its last row or column where its sides are odd."""
    return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))


def _input_tiles(x: jax.Array) -> list[jax.Array]:
    """Return B' d B of all tiles of x [N, H, W, C]: 16 times [tiles, C]."""
    even = _even(x)
    _, height, width, channels = even.shape
    # Without computed_once a fusion would pad anew for each of the elements.
    padded = computed_once(jnp.pad(even, ((0, 0), (1, 1), (1, 1), (0, 0))))

    def element(i: int, j: int) -> jax.Array:
        return padded[:, i : i + height - 1 : 2, j : j + width - 1 : 2].reshape(-1, channels)

    return _transformed(INPUT_TRANSFORM, element)


def _convolve(x: jax.Array, matrices: list[jax.Array], axis: int) -> jax.Array:
    """Convolve x with matrices, 16 times [C, D]. axis: which of their two axes are x's channels."""
    convolve = functools.partial(_convolve_some, matrices, axis)
    results = lax.map(convolve, _microbatches(x, x.shape[-1]))
    return results.reshape(x.shape[0], *results.shape[2:])


def _convolve_some(matrices: list[jax.Array], axis: int, x: jax.Array) -> jax.Array:
    images, height, width, _ = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    products = [
        jnp.tensordot(tile_input, matrix, axes=((1,), (axis,)))
        for tile_input, matrix in zip(_input_tiles(x), matrices, strict=True)
    ]
    outputs = products[0].shape[-1]
    tiles = _transformed(OUTPUT_TRANSFORM, lambda i, j: products[4 * i + j])
    # Tiles are written in place, because a CPU takes longer over their concatenation.
    y = jnp.zeros((images, rows, 2, columns, 2, outputs), x.dtype)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, 2)
        tile = tile.reshape(images, rows, 1, columns, 1, outputs)
        y = lax.dynamic_update_slice(y, tile, (0, 0, row, 0, column, 0))
    return y.reshape(images, 2 * rows, 2 * columns, outputs)[:, :height, :width]


def _gradient_of_some(x: jax.Array, gradient: jax.Array) -> jax.Array:
    outputs = gradient.shape[-1]
    even = _even(gradient)
    output_tiles = _transformed(
        _transposed(OUTPUT_TRANSFORM), lambda i, j: even[:, i::2, j::2].reshape(-1, outputs)
    )
    products = [
        tile_input.T @ tile for tile_input, tile in zip(_input_tiles(x), output_tiles, strict=True)
    ]
    kernel = _transformed(_transposed(KERNEL_TRANSFORM), lambda i, j: products[4 * i + j])
    return jnp.stack(kernel).reshape(3, 3, x.shape[-1], outputs)
