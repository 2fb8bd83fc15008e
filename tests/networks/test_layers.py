"""Layers against plain formulas and against what XLA and Flax do."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from tsar_jax.networks.layers import ConvBlock
from tsar_jax.ops.conv3x3 import conv3x3
from tsar_jax.ops.image_block import image_block, norm_per_image
from tsar_jax.ops.pool import max_pool_2x2
from tsar_jax.ops.products import in_microbatches, largest_divisor, wide_affine

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("microbatch", [None, 2])
def test_convolution_is_that_of_xla(stride, microbatch):
    images, kernel = normal(4, 9, 8, 3), normal(3, 3, 3, 5, seed=1)

    def theirs(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    @jax.jit
    def both(images, kernel):
        one, pull_one = jax.vjp(lambda x, k: conv3x3(x, k, stride, microbatch), images, kernel)
        two, pull_two = jax.vjp(theirs, images, kernel)
        cotangent = jnp.sin(jnp.arange(two.size, dtype=jnp.float32)).reshape(two.shape)
        return (one, *pull_one(cotangent)), (two, *pull_two(cotangent))

    ours, wanted = both(images, kernel)
    assert wanted[0].shape == (4, (9 - 3) // stride + 1, (8 - 3) // stride + 1, 5)
    for our, want in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(our, want, rtol=1e-4, atol=1e-4)


def test_wide_affine_map_and_its_gradient_are_the_plain_ones():
    x, matrix, bias = normal(4, 3), normal(3, 50, seed=1), normal(50, seed=2)

    @jax.jit
    def both(*arrays):
        ours, pull_ours = jax.vjp(wide_affine, *arrays)
        plain, pull_plain = jax.vjp(lambda x, m, b: x @ m + b, *arrays)
        cotangent = jnp.sin(jnp.arange(ours.size, dtype=jnp.float32)).reshape(ours.shape)
        return (ours, *pull_ours(cotangent)), (plain, *pull_plain(cotangent))

    for our, want in zip(*both(x, matrix, bias), strict=True):
        np.testing.assert_allclose(our, want, rtol=1e-5, atol=1e-5)


def test_grey_image_stands_for_equal_channels():
    images, kernel = normal(2, 6, 7, 1), normal(3, 3, 3, 4, seed=1)
    grey, colour = jax.jit(lambda x, k: (conv3x3(x, k), conv3x3(jnp.repeat(x, 3, -1), k)))(
        images, kernel
    )
    np.testing.assert_allclose(grey, colour, rtol=1e-5, atol=1e-5)


def test_convolution_refuses_channels_that_do_not_match():
    with pytest.raises(AssertionError):
        conv3x3(jnp.zeros((1, 5, 5, 2)), jnp.zeros((3, 3, 3, 4)))


@given(number=st.integers(1, 500), limit=st.integers(1, 500))
def test_largest_divisor(number, limit):
    wanted = max(d for d in range(1, min(limit, number) + 1) if number % d == 0)
    assert largest_divisor(number, limit) == wanted


@settings(max_examples=12, deadline=None)
@given(rows=st.sampled_from([1, 2, 6, 7, 12, 13]), size=st.none() | st.integers(1, 14))
def test_microbatches_change_neither_value_nor_gradient(rows, size):
    x, params, seen = normal(rows, 3), normal(3, 2, seed=1), []

    def layer(params, x):
        seen.append(x.shape[0])
        return jnp.tanh(x @ params)

    def whole(params, x):
        return jnp.tanh(x @ params)

    def summed(function):
        return lambda p, x: jnp.square(function(p, x)).sum()

    def batched(p, x):
        return in_microbatches(layer, p, x, size)

    @jax.jit
    def both(params, x):
        ours = batched(params, x), jax.grad(summed(batched), (0, 1))(params, x)
        return ours, (whole(params, x), jax.grad(summed(whole), (0, 1))(params, x))

    ours, wanted = both(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, wanted)
    assert set(seen) == {rows if size is None else largest_divisor(rows, size)}


def test_norm_is_per_image_and_channel_with_biased_variance():
    x, scale, offset = 3 + 2 * normal(3, 5, 4, 2), normal(2, seed=1), normal(2, seed=2)
    x[1, :, :, 0] = 7.0  # constant: only epsilon keeps the result finite
    x[2] *= 1e-3  # so small that epsilon, 1e-5, counts
    wide = x.astype(np.float64)
    mean = wide.mean((1, 2), keepdims=True)
    variance = wide.var((1, 2), keepdims=True)
    wanted = (wide - mean) / np.sqrt(variance + 1e-5) * scale + offset
    result = jax.jit(norm_per_image)(x, scale, offset)
    np.testing.assert_allclose(result, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(result[1, :, :, 0], offset[0], atol=1e-6)


def test_norm_does_not_depend_on_the_other_images():
    x, one, zero = normal(3, 4, 4, 2), np.ones(2, np.float32), np.zeros(2, np.float32)
    norm = jax.jit(norm_per_image)
    other = x.copy()
    other[1:] = 100 * normal(2, 4, 4, 2, seed=5) + 9
    np.testing.assert_array_equal(norm(x, one, zero)[0], norm(other, one, zero)[0])
    np.testing.assert_allclose(norm(x, one, zero).mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(norm(x, one, zero).var((1, 2)), 1, atol=1e-3)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (5, 4), (2, 3)])
def test_max_pool_is_that_of_flax(size):
    x = normal(2, *size, 3)

    @jax.jit
    def both(x):
        def value_and_gradient(pool):
            return pool(x), jax.grad(lambda x: jnp.sin(3 * pool(x)).sum())(x)

        theirs = functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
        return value_and_gradient(max_pool_2x2), value_and_gradient(theirs)

    ours, wanted = both(x)
    assert ours[0].shape == (2, size[0] // 2, size[1] // 2, 3)
    np.testing.assert_array_equal(ours[0], wanted[0])
    np.testing.assert_allclose(ours[1], wanted[1], atol=1e-6)


@pytest.mark.parametrize("in_channels", [3, 4])
def test_bias_before_the_norm_does_nothing_and_has_no_gradient(in_channels):
    block = ConvBlock(features=2, pool=True, in_channels=in_channels, microbatch=2)
    x = normal(4, 7, 7, in_channels)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
    params = {name: normal(*leaf.shape, seed=3) for name, leaf in shapes.items()}
    assert params.keys() == {"kernel", "bias", "scale", "offset"}

    @jax.jit
    def value_and_gradient(params):
        out, pull = jax.vjp(lambda p: block.apply({"params": p}, x), params)
        return out, pull(jnp.cos(out))[0]

    out, gradient = value_and_gradient(params)
    assert out.shape == (4, 2, 2, 2)
    assert np.all(np.asarray(gradient["bias"]) == 0)
    assert all(np.abs(gradient[name]).max() > 0 for name in ("kernel", "scale", "offset"))
    moved, _ = value_and_gradient({**params, "bias": params["bias"] + 1000})
    np.testing.assert_array_equal(out, moved)


@pytest.mark.parametrize("size", [(8, 8, 1), (9, 7, 3)])
def test_image_block_is_the_plain_block_to_the_second_derivative(size):
    images = normal(4, *size)
    kernel, scale, offset = normal(3, 3, 3, 5, seed=1), normal(5, seed=2), normal(5, seed=3)
    assert scale.min() < 0 < scale.max()  # pooling comes before the norm: mind the sign

    def plain(images, kernel, scale, offset):
        return max_pool_2x2(nn.relu(norm_per_image(conv3x3(images, kernel), scale, offset)))

    def derivatives(block):
        def value(*arguments):
            return jnp.sin(block(*arguments)).sum()

        def slope(*arguments):
            return sum(jnp.square(g).sum() for g in jax.grad(value, (0, 1, 2, 3))(*arguments))

        arguments = (images, kernel, scale, offset)
        return (
            block(*arguments),
            jax.grad(value, (0, 1, 2, 3))(*arguments),
            jax.grad(slope, (1, 2, 3))(*arguments),
        )

    ours, wanted = jax.jit(
        lambda: (derivatives(functools.partial(image_block, microbatch=2)), derivatives(plain))
    )()
    assert ours[0].shape == (4, (size[0] - 2) // 2, (size[1] - 2) // 2, 5)
    for our, want in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(our, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
