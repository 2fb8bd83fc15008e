"""The TSAR system: its treatments, what learns, and the first image learned twice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.models import ANML, TSAR, Ungated
from tsar_jax.systems import episodic
from tsar_jax.systems.tsar import TsarConfig, make_network, make_system

CONFIG = TsarConfig(
    channels=3,
    regulator_channels=2,
    outputs=9,
    train_classes=8,
    inner_updates=4,
    remember=6,
    eval_classes=2,
    eval_runs=1,
    eval_rates=(1e-2,),
)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    shape = (8, 20, 28, 28)
    return {name: rng.integers(0, 256, shape, np.uint8) for name in ("background", "evaluation")}


def test_treatments_are_networks_of_their_own():
    kinds = {"tsar": TSAR, "anml": ANML, "unregulated": Ungated}
    for model, kind in kinds.items():
        assert isinstance(make_network(dataclasses.replace(CONFIG, model=model)), kind)


def test_layers_are_checked_with_the_config():
    with pytest.raises(UserError, match="block_9"):
        dataclasses.replace(CONFIG, regulated=("block_9",))


def test_inner_loop_leaves_the_regulator_alone_and_may_repeat_its_first_image(data, monkeypatch):
    seen = []

    def recorded(network, theta, plastic, episode, **options):
        seen.append((plastic, episode))
        return jnp.zeros(()), {}

    monkeypatch.setattr(episodic, "meta_objective", recorded)
    for repeat in (False, True):
        system = make_system(dataclasses.replace(CONFIG, repeat_first=repeat))
        state = jax.eval_shape(system.init, jax.random.key(0))
        jax.eval_shape(system.step, state, data, jax.random.key(0))
    (plastic, once), (_, twice) = seen
    learns = {name for name, tree in plastic.items() if any(jax.tree.leaves(tree))}
    assert learns == {"trunk", "head"}
    assert once.trajectory.shape == (4,)
    assert twice.trajectory.shape == (5,)
    assert twice.images.shape == once.images.shape


def test_repeated_image_is_the_first(data):
    config = dataclasses.replace(CONFIG, repeat_first=True)
    episode = episodic.draw(config, data["background"], jax.random.key(3))
    np.testing.assert_array_equal(episode.trajectory, [0, 0, 1, 2, 3])


def test_step_and_evaluation_run(data):
    system = make_system(CONFIG)
    state = jax.jit(system.init)(jax.random.key(0))
    step, evaluate = jax.jit(system.step), jax.jit(system.evaluate)
    new, metrics = step(state, data, jax.random.key(1))
    assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), new, state)
    for level in ("encoder", "regulator", "trunk", "head"):
        assert max(jax.tree.leaves(moved.params[level])) > 0
    found = evaluate(new, data, jax.random.key(2))
    assert 0 <= found["meta_test_test"] <= 1
