"""Networks: published sizes, initialisation, and levels that make up the whole."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.networks import (
    ANML,
    OML,
    Ungated,
    frozen_stages,
    init_params,
    params_like,
    run_stages,
)
from tsar_jax.plasticity.masks import leaf_names, mask

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def random_params(network, seed=0):
    """Parameters without the seconds that compiling the initialisation takes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype) / 3, params_like(network)
    )


NETWORKS = {
    "anml": ANML(channels=2, gate_channels=3, classes=4),
    "oml": OML(channels=2, hidden_features=5, classes=4),
    "ungated": Ungated(channels=2, classes=4),
}


@pytest.mark.parametrize(
    ("network", "arrays", "parameters"),
    [(ANML(), 28, 6_048_424), (OML(), 16, 6_342_888), (Ungated(), 14, 3_493_864)],
    ids=["anml", "oml", "ungated"],
)
def test_published_sizes(network, arrays, parameters):
    params = params_like(network)
    assert len(jax.tree.leaves(params)) == arrays
    assert count(params) == parameters
    for channels in (1, 3):
        images = jax.ShapeDtypeStruct((5, 28, 28, channels), jnp.float32)
        assert jax.eval_shape(lambda p, x: run_stages(network, p, x), params, images).shape == (
            5,
            1000,
        )


def test_published_widths_of_anml():
    params = params_like(ANML())
    assert params["neuromodulator"]["gate"]["kernel"].shape == (1008, 2304)
    assert params["head"]["kernel"].shape == (2304, 1000)
    trunks = {"trunk": 256, "gate": 112}
    for name, tree in (("trunk", params), ("gate", params["neuromodulator"])):
        width = trunks[name]
        kernels = [tree["trunk"][f"block_{i}"]["kernel"].shape for i in range(3)]
        assert kernels == [(3, 3, 3, width), (3, 3, width, width), (3, 3, width, width)]
    images = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    spaces = jax.eval_shape(
        lambda p, x: ANML().apply({"params": p}, x, method="representations"), params, images
    )
    assert {name: space.shape for name, space in spaces.items()} == {
        "gate": (2, 2304),
        "features before gate": (2, 2304),
        "features": (2, 2304),
    }


def test_published_widths_of_oml():
    params = params_like(OML())
    assert params["hidden"]["kernel"].shape == (2304, 1024)
    assert params["head"]["kernel"].shape == (1024, 1000)
    assert OML().stages == ("representation", "hidden", "head")


def test_initialisation_is_he_normal_with_zero_biases_and_unit_gains():
    network = Ungated(channels=24, classes=50)
    params = jax.jit(lambda key: init_params(network, key))(jax.random.key(3))
    for name, leaf in zip(leaf_names(params), jax.tree.leaves(params), strict=True):
        value = np.asarray(leaf)
        if name.endswith("kernel"):
            wanted = np.sqrt(2 / np.prod(value.shape[:-1]))
            assert value.std() == pytest.approx(wanted, rel=5 / np.sqrt(2 * value.size)), name
            assert abs(value.mean()) < 5 * wanted / np.sqrt(value.size), name
            if value.size > 3000:  # neither uniform (1.7) nor truncated (2.3)
                assert np.abs(value).max() > 2.8 * wanted, name
        else:
            np.testing.assert_array_equal(value, 1.0 if name.endswith("scale") else 0.0)


@pytest.mark.parametrize("kind", NETWORKS)
def test_running_in_levels_is_the_whole_run(kind):
    network = NETWORKS[kind]
    params = random_params(network)
    images = np.random.default_rng(1).normal(size=(2, 28, 28, 1)).astype(np.float32)

    @jax.jit
    def runs(params, images):
        whole = network.apply({"params": params}, images)
        parts = []
        for cut in range(len(network.stages) + 1):
            signals = run_stages(network, params, images, 0, cut)
            parts.append(run_stages(network, params, signals, cut))
        return whole, parts

    whole, parts = runs(params, images)
    assert whole.shape == (2, 4)
    assert np.ptp(whole) > 1e-3
    for part in parts:
        np.testing.assert_allclose(part, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_frozen_stages_end_where_something_learns(kind):
    network = NETWORKS[kind]
    params = params_like(network)
    for choice in itertools.product([False, True], repeat=len(network.stages)):
        names = [level for level, plastic in zip(network.stages, choice, strict=True) if plastic]
        wanted = choice.index(True) if any(choice) else len(choice)
        assert frozen_stages(network, mask(params, names)) == wanted


def test_one_plastic_array_thaws_its_level():
    params = params_like(NETWORKS["anml"])
    plastic = mask(params, ["neuromodulator/gate/bias", "head"])
    assert frozen_stages(NETWORKS["anml"], plastic) == 0


def test_open_gate_makes_the_ungated_network_and_closed_gate_leaves_the_bias():
    anml, ungated = NETWORKS["anml"], NETWORKS["ungated"]
    params = random_params(anml)
    images = np.random.default_rng(1).normal(size=(2, 28, 28, 1)).astype(np.float32)

    def gated(bias):
        gate = params["neuromodulator"]["gate"]
        gate = {"kernel": np.zeros_like(gate["kernel"]), "bias": np.full_like(gate["bias"], bias)}
        return {**params, "neuromodulator": {**params["neuromodulator"], "gate": gate}}

    run = jax.jit(lambda params, images: run_stages(anml, params, images))
    inner = {"trunk": params["trunk"], "head": params["head"]}
    wanted = jax.jit(lambda p, images: run_stages(ungated, p, images))(inner, images)
    np.testing.assert_allclose(run(gated(50.0), images), wanted, rtol=1e-5, atol=1e-5)
    closed = run(gated(-80.0), images)
    np.testing.assert_allclose(closed, np.tile(params["head"]["bias"], (2, 1)), atol=1e-6)
