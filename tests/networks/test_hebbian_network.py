"""The policy networks against numpy, and where their weights begin."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from tsar_jax.errors import UserError
from tsar_jax.networks.hebbian_network import (
    FEATURES,
    INITIALISERS,
    KERNELS,
    draw_layers,
    find_initialiser,
    forward,
    image_features,
    layer_shapes,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SHAPE = OUT, INTO = 300, 200


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("sizes", [(5, 4, 3), (3, 2)])
def test_activities_are_tanh_but_for_outputs_that_are_not_bounded(sizes, bounded) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in layer_shapes(sizes)]
    inputs = rng.normal(size=sizes[0])
    with jax.enable_x64(True):
        found = forward(tuple(map(jnp.asarray, weights)), jnp.asarray(inputs), bounded=bounded)
        found = list(map(np.asarray, found))
    assert len(found) == len(sizes)
    np.testing.assert_array_equal(found[0], inputs)
    for layer, w in enumerate(weights):
        drive = w @ found[layer]
        last = layer == len(weights) - 1
        wanted = drive if last and not bounded else np.tanh(drive)
        np.testing.assert_allclose(found[layer + 1], wanted, rtol=1e-12)


def test_inputs_that_are_no_vector_are_refused() -> None:
    with pytest.raises(AssertionError):
        forward((jnp.zeros((2, 3)),), jnp.zeros((1, 3)), bounded=False)


def convolved(x, kernel, stride):
    """The sum over a window's places and channels, at every stride-th window."""
    side = kernel.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(0, 1))
    return np.einsum("hwcij,ijcd->hwd", windows[::stride, ::stride], kernel)


def pooled(x):
    """The largest of every four, of whole fours only."""
    x = x[: len(x) // 2 * 2, : len(x) // 2 * 2]
    return np.max([x[i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)


def test_features_are_those_of_a_plain_convolution_and_pool() -> None:
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=shape, scale=0.2) for shape in KERNELS]
    image = rng.uniform(size=(84, 84, 3))
    x = image
    for kernel, stride in zip(kernels, (1, 2), strict=True):
        x = pooled(np.tanh(convolved(x, kernel, stride)))
    assert x.shape == (9, 9, 8)
    assert x.std() > 0.1
    found = image_features(
        tuple(jnp.asarray(k, jnp.float32) for k in kernels), jnp.asarray(image, jnp.float32)
    )
    assert found.shape == (FEATURES,)
    np.testing.assert_allclose(found, x.reshape(-1), atol=1e-5)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(AssertionError):
        image_features(tuple(map(jnp.zeros, KERNELS)), jnp.zeros((96, 96, 3)))


def drawn(name, seed=0):
    return np.asarray(INITIALISERS[name](jax.random.key(seed), SHAPE))


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("uni", 0.1),
        ("uni_big", 1.0),
        ("xa_uni", 0.3 * math.sqrt(6 / 500)),
        ("xa_uni_big", math.sqrt(6 / 500)),
        ("ka_uni", math.sqrt(0.6 / INTO)),
        ("default", math.sqrt(1 / INTO)),
    ],
)
def test_uniform_weights_fill_their_bounds(name, bound) -> None:
    weights = drawn(name)
    assert weights.shape == SHAPE
    assert kstest(weights.ravel(), "uniform", (-bound, 2 * bound)).pvalue > 1e-3


def test_normal_weights_have_the_published_deviation() -> None:
    weights = drawn("normal")
    assert weights.shape == SHAPE
    assert kstest(weights.ravel() / 0.024, "norm").pvalue > 1e-3


def test_sparse_weights_leave_every_unit_a_fifth_of_its_own_choice() -> None:
    weights = drawn("sparse")
    zero = weights == 0
    assert weights.shape == SHAPE
    np.testing.assert_array_equal(zero.sum(0), 240)
    assert kstest(weights[~zero] / 0.01, "norm").pvalue > 1e-3
    # Of the units it reaches, two units share a fifth by chance, and each is as likely as another.
    kept = 1.0 * ~zero
    shared = (kept.T @ kept)[np.triu_indices(INTO, 1)] / 60
    assert shared.max() < 0.5
    assert shared.mean() == pytest.approx(0.2, abs=0.01)
    assert np.abs(kept.mean(1) - 0.2).max() < 0.15


def test_a_part_of_a_unit_rounds_up_to_zero() -> None:
    weights = INITIALISERS["sparse"](jax.random.key(0), (6, 20))
    np.testing.assert_array_equal(np.asarray(weights == 0).sum(0), 5)


def test_weights_may_all_be_one_or_zero() -> None:
    np.testing.assert_array_equal(drawn("ones"), np.ones(SHAPE))
    np.testing.assert_array_equal(drawn("zeros"), np.zeros(SHAPE))


@pytest.mark.parametrize("name", ["uni", "sparse"])
def test_every_layer_and_every_key_draws_its_own(name) -> None:
    first, second = draw_layers(INITIALISERS[name], jax.random.key(0), (20, 20, 20))
    other, _ = draw_layers(INITIALISERS[name], jax.random.key(1), (20, 20, 20))
    assert first.shape == second.shape == (20, 20)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_shapes_of_layers_are_out_and_in() -> None:
    assert layer_shapes((28, 128, 64, 8)) == [(128, 28), (64, 128), (8, 64)]


def test_unknown_initial_weights_are_named_with_the_known_ones() -> None:
    assert find_initialiser("uni") is INITIALISERS["uni"]
    with pytest.raises(UserError, match=r"no kind of initial weights 'one': .* uni, .*coevolve"):
        find_initialiser("one")
