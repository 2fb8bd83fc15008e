"""Layers whose backward pass squares: in a parameter's place it gives sum_n (d_n)^2.

d_n is the gradient that image n alone would give the parameter, if no image's outputs depend on
another's. The gradient of a layer's input is the plain one; so one backward pass of a network made
of these layers gives the sum of squared gradients of every image, each as if by itself.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.devices import by_platform
from tsar_jax.ops import winograd
from tsar_jax.ops.convolution import (
    WIDE,
    convolve,
    input_gradient,
    padded_patches,
    takes_winograd,
)
from tsar_jax.ops.products import largest_divisor

# Least number of positions of an image whose Winograd tiles fill a product.
MANY_POSITIONS = 256
# Images whose squares are added in one pass over their sum, which bounds the memory.
TOGETHER = 5
# Parts of a kernel's rows, one for each of its 3 x 3 positions, where the sum exceeds a cache.
PARTS = 9

Saved = tuple[jax.Array, ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_squared(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Return `convolution.convolve`; its backward pass gives the kernel's sum of squares."""
    return convolve(x, kernel, stride)


def _convolve_forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, Saved]:
    return convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(
    stride: int, saved: Saved, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    squares = by_platform(
        x,
        gradient,
        cpu=lambda x, g: _squares_on_cpu(x, kernel, g, stride),
        default=lambda x, g: _squares_of_all(x, kernel, g, stride),
    )
    return input_gradient(x, kernel, gradient, stride), squares


convolve_squared.defvjp(_convolve_forward, _convolve_backward)


def _by_image(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int
) -> tuple[jax.Array, jax.Array]:
    """Return patches [N, P, K] and gradients [N, P, D] of each image's positions."""
    images, size = x.shape[0], kernel.shape[0]
    patches = padded_patches(x, size, stride).reshape(images, -1, size * size * kernel.shape[2])
    return patches, gradient.reshape(images, -1, kernel.shape[3])


def _squares_of_all(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
    patches, gradients = _by_image(x, kernel, gradient, stride)
    squares = jnp.square(jnp.einsum("npk,npd->nkd", patches, gradients)).sum(0)
    return squares.reshape(kernel.shape)


def _squares_on_cpu(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
    if takes_winograd(kernel, stride) and x.shape[1] * x.shape[2] >= MANY_POSITIONS:
        return winograd.squares(x, gradient)
    squares = _squares_of_patches(*_by_image(x, kernel, gradient, stride))
    return squares.reshape(kernel.shape)


def _squares_of_patches(patches: jax.Array, gradient: jax.Array) -> jax.Array:
    """Return sum_n (patches_n' gradient_n)^2. patches [N, P, K], gradient [N, P, D] -> [K, D].

    It takes a few images at a time, because the products of all would fill much memory; and where
    even the sum is too large for a cache, a part of its rows at a time.
    """
    images, positions, inputs = patches.shape
    outputs = gradient.shape[-1]
    parts = PARTS if outputs >= WIDE and inputs % PARTS == 0 else 1
    together = largest_divisor(images, TOGETHER)

    def rows(part: jax.Array) -> jax.Array:
        def add(total: jax.Array, some: Saved) -> tuple[jax.Array, None]:
            squares = [jnp.square(a.T @ b) for a, b in zip(*some, strict=True)]
            return total + functools.reduce(jnp.add, squares), None

        start = jnp.zeros((inputs // parts, outputs), patches.dtype)
        some = (a.reshape(-1, together, *a.shape[1:]) for a in (part, gradient))
        return lax.scan(add, start, tuple(some))[0]

    if parts == 1:
        return rows(patches)
    split = patches.reshape(images, positions, parts, -1).transpose(2, 0, 1, 3)
    return lax.map(rows, split).reshape(inputs, outputs)


@jax.custom_vjp
def affine_squared(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Return x [N, H, W, C] * scale [C] + bias [C]; its backward pass gives sums of squares."""
    return x * scale + bias


def _affine_forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, Saved]:
    return affine_squared(x, scale, bias), (x, scale)


def _affine_backward(saved: Saved, gradient: jax.Array) -> Saved:
    x, scale = saved
    of_scale, of_bias = (gradient * x).sum((1, 2)), gradient.sum((1, 2))
    return gradient * scale, jnp.square(of_scale).sum(0), jnp.square(of_bias).sum(0)


affine_squared.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def dense_squared(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Return x [N, F] @ kernel [F, D] + bias [D]; its backward pass gives sums of squares."""
    return x @ kernel + bias


def _dense_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, Saved]:
    return dense_squared(x, kernel, bias), (x, kernel)


def _dense_backward(saved: Saved, gradient: jax.Array) -> Saved:
    x, kernel = saved
    squared = jnp.square(gradient)
    return gradient @ kernel.T, jnp.square(x).T @ squared, squared.sum(0)


dense_squared.defvjp(_dense_forward, _dense_backward)
