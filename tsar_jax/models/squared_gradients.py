"""Layers whose backward pass squares: in a parameter's place it gives sum_n (d_n)^2.

d_n is the gradient that image n alone would give the parameter, if no image's outputs depend on
another's. The gradient of a layer's input is the plain one; so one backward pass of a network made
of these layers gives the sum of squared gradients of every image, each as if by itself.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.models.convolution import WIDE, convolve, input_gradient, padded_patches

Saved = tuple[jax.Array, ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_squared(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`convolution.convolve`."""
    return convolve(x, kernel, stride)


def _convolve_forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, Saved]:
    return convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(
    stride: int, saved: Saved, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    size, _, _, outputs = kernel.shape
    images = x.shape[0]
    patches = padded_patches(x, size, stride).reshape(images, -1, size * size * kernel.shape[2])
    of_places = gradient.reshape(images, -1, outputs)
    squares = lax.platform_dependent(
        patches,
        of_places,
        cpu=_squares_on_cpu,
        default=lambda a, b: jnp.square(jnp.einsum("npk,npd->ndk", a, b)).sum(0),
    )
    return input_gradient(x, kernel, gradient, stride), squares.T.reshape(kernel.shape)


convolve_squared.defvjp(_convolve_forward, _convolve_backward)


def _squares_on_cpu(patches: jax.Array, gradient: jax.Array) -> jax.Array:
    """sum_n (gradient_n' patches_n)^2. patches [N, P, K], gradient [N, P, D] -> [D, K].

    One image after another, for the products of all would fill much memory; and where even the
    sum is too large for a cache, some of its columns after others.
    """
    images, places, inputs = patches.shape
    outputs = gradient.shape[-1]
    parts = 9 if outputs >= WIDE and inputs % 9 == 0 else 1

    def columns(part: jax.Array) -> jax.Array:
        def add(total: jax.Array, image: Saved) -> tuple[jax.Array, None]:
            one = jnp.tensordot(image[1], image[0], axes=((0,), (0,)))
            return total + jnp.square(one), None

        start = jnp.zeros((outputs, inputs // parts), patches.dtype)
        return lax.scan(add, start, (part, gradient))[0]

    if parts == 1:
        return columns(patches)
    split = patches.reshape(images, places, parts, -1).transpose(2, 0, 1, 3)
    return lax.map(columns, split).swapaxes(0, 1).reshape(outputs, inputs)


@jax.custom_vjp
def affine_squared(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """x [N, H, W, C] * scale [C] + bias [C]."""
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
    """x [N, F] @ kernel [F, D] + bias [D]."""
    return x @ kernel + bias


def _dense_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, Saved]:
    return dense_squared(x, kernel, bias), (x, kernel)


def _dense_backward(saved: Saved, gradient: jax.Array) -> Saved:
    x, kernel = saved
    squared = jnp.square(gradient)
    return gradient @ kernel.T, jnp.square(x).T @ squared, squared.sum(0)


dense_squared.defvjp(_dense_forward, _dense_backward)
