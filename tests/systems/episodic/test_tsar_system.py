"""The TSAR system: its baselines, what learns, and the first image learned twice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.networks import (
    ANML,
    TSAR,
    Ungated,
    init_params,
    params_like,
)
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic import system as episodic
from tsar_jax.systems.episodic.tsar import (
    INNER,
    TRANSFERRED,
    TsarConfig,
    effective_config,
    learns_as_published,
    make_network,
    make_system,
    plastic_after,
)

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


def test_classifiers_have_their_published_channels_unless_told():
    published = {"tsar": 112, "anml": 256, "unregulated": 112}
    for model, channels in published.items():
        assert make_network(TsarConfig(model=model)).channels == channels
        assert make_network(TsarConfig(model=model, channels=5)).channels == 5
    with pytest.raises(UserError, match="channels must be at least 1"):
        TsarConfig(channels=0)


@pytest.mark.parametrize(
    ("change", "bias"),
    [({}, -8), ({"initial_bias": -3.0}, -3), ({"gate_bias": 0.0}, 0)],
)
def test_gate_of_anml_begins_with_the_bias_of_every_head(change, bias):
    network = make_network(dataclasses.replace(CONFIG, model="anml", **change))
    assert network.gate_bias == bias


@pytest.mark.usefixtures("quickly_compiled")
def test_gate_bias_is_that_of_every_gate():
    network = make_network(dataclasses.replace(CONFIG, model="anml"))
    params = jax.jit(lambda key: init_params(network, key))(jax.random.key(0))
    gate = params["neuromodulator"]["gate"]["bias"]
    np.testing.assert_array_equal(gate, np.full(27, -8, np.float32))


@pytest.mark.parametrize(
    ("model", "rln", "names"),
    [
        ("tsar", 6, TRANSFERRED["tsar"]),
        ("tsar", 10, INNER),
        ("tsar", 0, ("all",)),
        ("tsar", 9, ("regulator/head", *INNER)),
        ("tsar", 16, ("head",)),
        ("anml", 6, TRANSFERRED["anml"]),
        ("anml", 7, INNER),
        ("anml", 13, ("head",)),
    ],
)
def test_layers_that_a_release_freezes(model, rln, names):
    config = dataclasses.replace(CONFIG, model=model)
    params = params_like(make_network(config))
    assert mask(params, plastic_after(config, rln)) == mask(params, names)


def test_what_learns_as_published_may_be_named_otherwise():
    for model, others in (("tsar", ("head", "trunk", "regulator")), ("anml", None)):
        config = dataclasses.replace(CONFIG, model=model)
        assert learns_as_published(config, others or TRANSFERRED[model])
        assert learns_as_published(config, plastic_after(config, 6))
        assert not learns_as_published(config, INNER)


def test_effective_configs_of_one_network_are_equal():
    """Runs of earlier versions have 112 channels and a gate's bias of 0, whatever the model."""
    for model in ("tsar", "unregulated"):
        today = TsarConfig(model=model)
        old = dataclasses.replace(today, channels=112, gate_bias=0.0)
        assert effective_config(old) == effective_config(today) != today
        assert make_network(effective_config(old)) == make_network(today)
    anml = effective_config(TsarConfig(model="anml"))
    assert (anml.channels, anml.gate_bias) == (256, -8)
    assert anml != effective_config(TsarConfig(model="anml", gate_bias=0.0))


def test_transfer_of_anml_teaches_the_gate_but_not_the_trunk_before_it():
    learns = plastic_after(dataclasses.replace(CONFIG, model="anml"), 6)
    assert {name for name in learns if name.startswith("neuromodulator")} == {
        "neuromodulator/gate/kernel",
        "neuromodulator/gate/bias",
    }


def test_layers_count_as_in_the_release_where_some_are_not_regulated():
    config = dataclasses.replace(CONFIG, regulated=("block_2",))
    assert "regulator/block_2/kernel" in plastic_after(config, 6)
    assert not [name for name in plastic_after(config, 9) if name.startswith("regulator")]


@pytest.mark.parametrize(
    ("model", "rln", "word"),
    [("tsar", 17, "17 layers"), ("tsar", -1, "17 layers"), ("unregulated", 6, "plastic")],
)
def test_layers_that_no_release_has_are_refused(model, rln, word):
    with pytest.raises(UserError, match=word):
        plastic_after(dataclasses.replace(CONFIG, model=model), rln)


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
    new, metrics, _ = step(state, data, jax.random.key(1))
    assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), new, state)
    for level in ("encoder", "regulator", "trunk", "head"):
        assert max(jax.tree.leaves(moved.params[level])) > 0
    found = evaluate(new, data, jax.random.key(2))
    assert 0 <= found["meta_test_test"] <= 1
