"""In 64 bits arrays of two precisions meet: the result is the wider, a gradient its own array's."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from tsar_jax.networks.regulated import gate_weights
from tsar_jax.ops.conv3x3 import conv3x3
from tsar_jax.ops.convolution import convolve
from tsar_jax.ops.pool import largest_product
from tsar_jax.ops.products import product, wide_affine

SHAPES = {
    conv3x3: [(2, 5, 5, 3), (3, 3, 3, 4)],
    partial(convolve, stride=1): [(2, 5, 5, 3), (3, 3, 3, 4)],
    partial(convolve, stride=2): [(2, 5, 5, 3), (1, 1, 3, 4)],
    product: [(2, 3), (3, 4)],
    wide_affine: [(2, 3), (3, 4), (4,)],
    largest_product: [(2, 4, 3), (3, 5)],
    gate_weights: [(3, 4), (2, 3, 4)],
}


@pytest.mark.parametrize("wide", [0, 1])
@pytest.mark.parametrize(
    "function",
    SHAPES,
    # Not their own text, which has addresses: each process would name the tests otherwise.
    ids=["conv3x3", "convolve", "convolve by 2", "product", "wide_affine", "largest", "gates"],
)
def test_two_precisions(function, wide) -> None:
    with jax.enable_x64(True):
        dtypes = [jnp.float64 if i == wide else jnp.float32 for i in range(len(SHAPES[function]))]
        arrays = [
            jax.ShapeDtypeStruct(shape, dtype)
            for shape, dtype in zip(SHAPES[function], dtypes, strict=True)
        ]

        def total(arrays):
            return jnp.square(function(*arrays)).sum()

        gradients = jax.eval_shape(jax.grad(total), arrays)
        assert [gradient.dtype for gradient in gradients] == dtypes
