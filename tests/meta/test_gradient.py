"""Meta-gradients: means over episodes, and derivatives that finite differences confirm."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.data.episodes import Episode
from tsar_jax.meta.gradient import meta_gradient
from tsar_jax.networks import ANML, params_like
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.system import meta_objective

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def test_gradient_of_several_episodes_is_the_mean_of_single_ones():
    theta = {"weights": np.array([0.3, -0.7], np.float32)}
    episodes = (np.arange(8, dtype=np.float32).reshape(4, 2), np.array([1, 0, 2, 5], np.float32))
    key = jax.random.key(4)

    def objective(theta, episode, key):
        images, target = episode
        noise = jax.random.uniform(key)
        loss = jnp.square(jnp.tanh(theta["weights"]) @ images + noise - target)
        return loss, {"noise": noise, "target": target}

    loss, gradient, metrics = jax.jit(lambda *a: meta_gradient(objective, *a))(theta, episodes, key)
    single = jax.jit(jax.value_and_grad(objective, has_aux=True))
    ones = [
        single(theta, jax.tree.map(operator.itemgetter(index), episodes), episode_key)
        for index, episode_key in enumerate(jax.random.split(key, 4))
    ]
    (wanted_loss, wanted_metrics), wanted = jax.tree.map(
        lambda *leaves: np.mean(leaves, axis=0), *ones
    )
    assert float(loss) == pytest.approx(float(wanted_loss), rel=1e-5)
    np.testing.assert_allclose(gradient["weights"], wanted["weights"], rtol=1e-5)
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
        {name: float(value) for name, value in wanted_metrics.items()}, rel=1e-5
    )
    assert len({float(metrics["noise"]) for (_, metrics), _ in ones}) == 4


@pytest.fixture(scope="module")
def tiny():
    """A point theta, and options -> the objective of a tiny ANML in float64."""
    network = ANML(microbatch=None, channels=2, gate_channels=2, classes=4)
    rng = np.random.default_rng(0)
    shapes = params_like(network)
    theta = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / 2, shapes)
    plastic = mask(theta, ("trunk", "head"))
    with jax.enable_x64(True):
        episode = Episode(
            jnp.asarray(rng.normal(size=(8, 28, 28, 1))),
            jnp.array([0, 0, 0, 3, 3, 1, 2, 0]),
            trajectory=jnp.arange(5),
            reset_classes=jnp.array([0, 3]),
            query=jnp.array([2, 3, 4, 5, 6, 7]),
        )

        def objective(**options):
            return lambda theta: meta_objective(
                network, theta, plastic, episode, learning_rate=0.1, **options
            )[0]

        yield theta, objective


@pytest.fixture(scope="module")
def second(tiny):
    """theta -> loss and second-order gradient, compiled."""
    with jax.enable_x64(True):
        yield jax.jit(jax.value_and_grad(tiny[1](first_order=False)))


def along(gradient, direction):
    return sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_second_order_gradient_is_the_slope_of_the_objective(tiny, second, seed):
    theta, _ = tiny
    rng = np.random.default_rng(seed)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), theta)
    width = 1e-6

    def loss(step):
        return float(second(jax.tree.map(lambda leaf, d: leaf + step * d, theta, direction))[0])

    with jax.enable_x64(True):
        slope = (loss(width) - loss(-width)) / (2 * width)
        gradient = second(theta)[1]
    assert along(gradient, direction) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_first_order_gradient_is_another_one(tiny, second):
    theta, objective = tiny
    with jax.enable_x64(True):
        loss, gradient = second(theta)
        first_loss, first = jax.jit(jax.value_and_grad(objective(first_order=True)))(theta)
    assert float(first_loss) == pytest.approx(float(loss), rel=1e-12)
    difference = jax.tree.map(lambda a, b: a - b, first, gradient)
    assert along(difference, difference) > 1e-4 * along(gradient, gradient)


@pytest.mark.slow
def test_rematerialisation_does_not_change_the_meta_gradient(tiny, second):
    theta, objective = tiny
    with jax.enable_x64(True):
        ours = jax.jit(jax.grad(objective(first_order=False, remat=True)))(theta)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
            ours,
            second(theta)[1],
        )


def test_every_slow_weight_is_improved_but_the_bias_before_the_norm(tiny, second):
    with jax.enable_x64(True):
        gradient = jax.device_get(second(tiny[0])[1])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        idle = path[-1].key == "bias" and "block" in path[-2].key
        assert (np.abs(leaf).max() == 0) == idle, path
