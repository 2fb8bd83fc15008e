"""The convolution for CPUs and its gradients against XLA's, and the squares of each image's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tsar_jax.ops import squared_gradients
from tsar_jax.ops.convolution import DEEP, WIDE, convolve
from tsar_jax.ops.squared_gradients import affine_squared, convolve_squared, dense_squared

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def plain(x, kernel, stride):
    margin = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(margin, margin)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


# Each form that a CPU is given: by rows, thin, strided, in patches, Winograd's, and both of 1x1.
CASES = [
    (3, 16, 5, 1),
    (3, 3, 5, 1),
    (3, 16, 5, 2),
    (3, 2, WIDE, 1),
    (3, DEEP, DEEP, 1),
    (1, 4, 5, 2),
    (1, 4, 5, 1),
]


@pytest.mark.parametrize(("size", "inputs", "outputs", "stride"), CASES)
def test_convolution_and_its_gradients(size, inputs, outputs, stride, monkeypatch):
    # As in a large image, whose squares take Winograd's form too.
    monkeypatch.setattr(squared_gradients, "MANY_POSITIONS", 6 * 7)
    x, kernel = normal(3, 6, 7, inputs), normal(size, size, inputs, outputs, seed=1)

    @jax.jit
    def both(x, kernel):
        def of_each(kernel):
            """Squares of the gradients that one image after another gives."""
            one = lambda x, g: jax.vjp(lambda k: plain(x[None], k, stride), kernel)[1](g[None])[0]  # noqa: E731
            return jnp.square(jax.vmap(one)(x, cotangent)).sum(0)

        ours, pull = jax.vjp(lambda x, k: convolve(x, k, stride), x, kernel)
        squared, pull_squared = jax.vjp(lambda x, k: convolve_squared(x, k, stride), x, kernel)
        want, pull_want = jax.vjp(lambda x, k: plain(x, k, stride), x, kernel)
        cotangent = jnp.sin(jnp.arange(want.size, dtype=jnp.float32)).reshape(want.shape)
        of_x, of_kernel = pull_want(cotangent)
        return (
            (ours, *pull(cotangent), squared, *pull_squared(cotangent)),
            (want, of_x, of_kernel, want, of_x, of_each(kernel)),
        )

    for our, want in zip(*both(x, kernel), strict=True):
        np.testing.assert_allclose(our, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_squares_of_affine_and_dense_layers():
    x, scale, bias = normal(3, 2, 2, 4), normal(4, seed=1), normal(4, seed=2)
    cotangent = normal(3, 2, 2, 4, seed=3)
    of_x, of_scale, of_bias = jax.vjp(affine_squared, x, scale, bias)[1](cotangent)
    np.testing.assert_allclose(of_x, cotangent * scale, rtol=1e-5)
    np.testing.assert_allclose(of_scale, ((cotangent * x).sum((1, 2)) ** 2).sum(0), rtol=1e-4)
    np.testing.assert_allclose(of_bias, (cotangent.sum((1, 2)) ** 2).sum(0), rtol=1e-4)
    rows, kernel, cotangent = normal(3, 5), normal(5, 4, seed=1), normal(3, 4, seed=4)
    of_x, of_kernel, of_bias = jax.vjp(dense_squared, rows, kernel, bias)[1](cotangent)
    np.testing.assert_allclose(of_x, cotangent @ kernel.T, rtol=1e-4, atol=1e-5)
    outer = rows[:, :, None] * cotangent[:, None]
    np.testing.assert_allclose(of_kernel, (outer**2).sum(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_bias, (cotangent**2).sum(0), rtol=1e-4)
