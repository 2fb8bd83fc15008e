"""Winograd's form of the 3x3 convolution against XLA's, and the squares of images' gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tsar_jax.ops import convolution, winograd

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def plain(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def each_kernel_gradient(x, kernel, gradient):
    one = lambda x, g: jax.vjp(lambda k: plain(x[None], k), kernel)[1](g[None])[0]  # noqa: E731
    return jax.vmap(one)(x, gradient)


@pytest.mark.parametrize(("height", "width"), [(5, 4), (2, 2), (1, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_winograd_is_the_convolution_and_its_gradients(
    height, width, dtype, tolerance, monkeypatch
):
    # Two images of 2x2 or 1x3 at a time, one of 5x4.
    monkeypatch.setattr(winograd, "MICROBATCH", 24)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = rng.normal(size=(4, height, width, 3)).astype(dtype)
        kernel = rng.normal(size=(3, 3, 3, 5)).astype(dtype)
        gradient = rng.normal(size=(4, height, width, 5)).astype(dtype)

        @jax.jit
        def both(x, kernel, gradient):
            want, pull = jax.vjp(plain, x, kernel)
            of_each = each_kernel_gradient(x, kernel, gradient)
            return (
                winograd.convolve(x, kernel),
                winograd.input_gradient(kernel, gradient),
                winograd.kernel_gradient(x, gradient),
                winograd.squares(x, gradient),
            ), (want, *pull(gradient), jnp.square(of_each).sum(0))

        for our, want in zip(*both(x, kernel, gradient), strict=True):
            assert our.dtype == want.dtype == dtype
            np.testing.assert_allclose(our, want, rtol=0, atol=tolerance * np.abs(want).max())


def test_seeds_with_kernels_of_their_own(monkeypatch):
    """Where a CPU takes Winograd's form, under vmap and through `convolve`."""
    monkeypatch.setattr(convolution, "DEEP", 2)
    monkeypatch.setattr(convolution, "DEEP_KERNEL", 2)
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 3, 4, 4, 2)), rng.normal(size=(2, 3, 3, 2, 3))
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)

    def all_of(convolve):
        def one(x, kernel):
            y, pull = jax.vjp(convolve, x, kernel)
            return y, *pull(jnp.sin(y))

        return jax.jit(jax.vmap(one))(x, kernel)

    ours = all_of(lambda x, kernel: convolution.convolve(x, kernel, 1))
    for our, want in zip(ours, all_of(plain), strict=True):
        np.testing.assert_allclose(our, want, rtol=0, atol=1e-4 * np.abs(want).max())
