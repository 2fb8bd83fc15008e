"""Convolutions that keep the image's size, or halve it: padded by one pixel under a 3x3 kernel.

XLA's CPU backend is fast in the forward convolution of float32 and slow in its gradients; so both
gradients are written out, the one of the input as a forward convolution, the one of the kernel as
matrix products. Between many channels Winograd's form is faster than either.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.devices import by_platform
from tsar_jax.ops import winograd
from tsar_jax.ops.products import computed_once, largest_divisor, product

# Least number of output channels from which a product of patches is faster than XLA's
# convolution: the products then cost far more than making the patches.
WIDE = 512
# Least number of channels on both sides from which Winograd's form is faster, because the products
# take longer than its transforms; and the same for a kernel's gradient, of narrower products.
DEEP = 64
DEEP_KERNEL = 256
# Least number of input channels for which products of rows are wide enough to be fast.
THIN = 16
# Images at a time in a kernel's gradient, so that its copies of them stay in a CPU's cache.
MICROBATCH = 8


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Return the convolution of x with a kernel, zero padded by one pixel under a 3x3 kernel.

    Args:
        x: [N, H, W, C].
        kernel: [3, 3, C, D] or [1, 1, C, D].
        stride: along both axes.

    Returns:
        [N, ceil(H / s), ceil(W / s), D], of the dtype that those of x and kernel promote to, which
        differ where JAX computes in 64 bits.
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_equal(x.shape[-1], kernel.shape[2])
    dtype = jnp.result_type(x, kernel)
    return _convolve_alike(x.astype(dtype), kernel.astype(dtype), stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_alike(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Return `convolve` of two arrays of one dtype."""
    return by_platform(
        x,
        kernel,
        cpu=lambda x, k: _convolve_on_cpu(x, k, stride),
        default=lambda x, k: _convolve(x, k, stride),
    )


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve_alike(x, kernel, stride), (x, kernel)


def _backward(
    stride: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return input_gradient(*saved, gradient, stride), kernel_gradient(*saved, gradient, stride)


_convolve_alike.defvjp(_forward, _backward)


def input_gradient(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
    """Return the gradient of x [N, H, W, C] under `convolve`, from that of its result [N, h, w,
    D].
    """
    return by_platform(
        kernel,
        gradient,
        cpu=lambda k, g: _input_gradient_on_cpu(x, k, g, stride),
        default=lambda k, g: _transposed(x, k, g, stride),
    )


def kernel_gradient(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
    """Return the gradient of kernel [3, 3, C, D] or [1, 1, C, D], otherwise as `input_gradient`."""

    def default(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda k: _convolve(x, k, stride), kernel)(gradient)[0]

    return by_platform(
        x,
        gradient,
        cpu=lambda x, g: _kernel_gradient_on_cpu(x, kernel, g, stride),
        default=default,
    )


def _convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    margin = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((margin, margin), (margin, margin)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def takes_winograd(kernel: jax.Array, stride: int) -> bool:
    """Return whether Winograd's form is the fastest on a CPU."""
    return kernel.shape[0] == 3 and stride == 1 and min(kernel.shape[2:]) >= DEEP


def _convolve_on_cpu(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    if takes_winograd(kernel, stride):
        return winograd.convolve(x, kernel)
    # XLA has a fast convolution for float32 only.
    if kernel.shape[:2] == (1, 1) or kernel.shape[3] >= WIDE or x.dtype != jnp.float32:
        patches = padded_patches(x, kernel.shape[0], stride)
        return product(patches, kernel.reshape(-1, kernel.shape[-1]))
    return _convolve(x, kernel, stride)


def _input_gradient_on_cpu(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int
) -> jax.Array:
    if takes_winograd(kernel, stride):
        return winograd.input_gradient(kernel, gradient)
    if stride == 1:
        return _convolve_on_cpu(gradient, kernel[::-1, ::-1].swapaxes(2, 3), 1)
    if kernel.shape[:2] == (1, 1):
        sampled = gradient @ kernel[0, 0].T
        rest = [
            (0, size - stride * (half - 1) - 1)
            for size, half in zip(x.shape, sampled.shape, strict=True)
        ]
        spread = [(0, 0, 0), *((*rest[axis], stride - 1) for axis in (1, 2)), (0, 0, 0)]
        return lax.pad(sampled, jnp.zeros((), sampled.dtype), spread)
    # Written out, with the kernel flipped beforehand: inside a loop XLA's own transpose is three
    # times slower.
    turned = computed_once(kernel[::-1, ::-1].swapaxes(2, 3))
    last = [1 + (size - 1) % stride for size in x.shape[1:3]]
    return lax.conv_general_dilated(
        gradient,
        turned,
        (1, 1),
        [(1, size) for size in last],
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _transposed(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
    return jax.linear_transpose(lambda x: _convolve(x, kernel, stride), x)(gradient)[0]


def _kernel_gradient_on_cpu(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int
) -> jax.Array:
    size, _, inputs, outputs = kernel.shape
    if takes_winograd(kernel, stride) and min(inputs, outputs) >= DEEP_KERNEL:
        return winograd.kernel_gradient(x, gradient)
    if size == 3 and stride == 1 and inputs >= THIN and outputs < WIDE:
        return _gradient_by_rows(x, gradient)
    patches = padded_patches(x, size, stride)
    return jnp.tensordot(patches, gradient, axes=((0, 1, 2), (0, 1, 2))).reshape(kernel.shape)


def _gradient_by_rows(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Return the gradient of a 3x3 kernel, `MICROBATCH` images at a time."""
    chunk = largest_divisor(x.shape[0], MICROBATCH)
    chunks = jax.tree.map(lambda a: a.reshape(-1, chunk, *a.shape[1:]), (x, gradient))
    start = jnp.zeros((3, 3, x.shape[-1], gradient.shape[-1]), x.dtype)
    return lax.scan(lambda total, c: (total + _gradient_of_some(*c), None), start, chunks)[0]


def _gradient_of_some(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Return three shifted rows of x, transposed, times three columns of the gradient, shifted.

    This makes six copies of an image instead of the nine of `padded_patches`. x is transposed first
    and once: XLA would transpose every shifted copy, and slowly.
    """
    images, height, width, inputs = x.shape
    outputs = gradient.shape[-1]
    channels = computed_once(x.reshape(-1, inputs).T).reshape(inputs, images, height, width)
    padded = jnp.pad(channels, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows = jnp.concatenate([padded[:, :, i : i + height] for i in range(3)])
    columns = jnp.concatenate(
        [jnp.pad(gradient, ((0, 0), (0, 0), (j, 2 - j), (0, 0))) for j in range(3)], axis=-1
    )
    products = rows.reshape(3 * inputs, -1) @ columns.reshape(-1, 3 * outputs)
    return products.reshape(3, inputs, 3, outputs).swapaxes(1, 2)


def padded_patches(x: jax.Array, size: int, stride: int) -> jax.Array:
    """Return a kernel's input at each position: [N, H, W, C] -> [N, h, w, size^2 C], row by row."""
    height, width = (-(-length // stride) for length in x.shape[1:3])
    margin = size // 2
    padded = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    return jnp.concatenate(
        [
            padded[
                :,
                row : row + stride * (height - 1) + 1 : stride,
                column : column + stride * (width - 1) + 1 : stride,
            ]
            for row in range(size)
            for column in range(size)
        ],
        axis=-1,
    )
