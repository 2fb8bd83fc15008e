"""Colour images, normalised channel by channel."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tsar_jax.data.normalise import normalise_cifar100, normalise_imagenet

STATISTICS = [
    (normalise_cifar100, (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    (normalise_imagenet, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
]
# Few shapes, since each is compiled anew.
IMAGES = st.sampled_from([(4, 2, 3), (2, 3, 2, 2, 3)]).flatmap(
    lambda shape: arrays.arrays(np.uint8, shape)
)
Normalise = Callable[[jax.Array], jax.Array]


@pytest.mark.parametrize(("normalise", "mean", "std"), STATISTICS)
@settings(max_examples=25, deadline=None)
@given(images=IMAGES)
def test_normalised_values(
    normalise: Normalise, mean: tuple, std: tuple, images: np.ndarray
) -> None:
    result = np.asarray(normalise(jnp.asarray(images)))
    assert result.dtype == np.float32
    wanted = (images.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6, strict=False)
    assert result.shape == images.shape


def test_known_values() -> None:
    images = jnp.asarray([[[0, 0, 0], [255, 255, 255]]], jnp.uint8)
    cifar = [[-1.98947, -1.98436, -1.71073], [2.05911, 2.13086, 2.12069]]
    np.testing.assert_allclose(normalise_cifar100(images)[0], cifar, atol=1e-4)
    imagenet = [[-2.11790, -2.03571, -1.80444], [2.24891, 2.42857, 2.64]]
    np.testing.assert_allclose(normalise_imagenet(images)[0], imagenet, atol=1e-4)
