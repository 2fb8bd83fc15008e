"""TSAR's gates: which weights they multiply, image by image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.networks import (
    TSAR,
    Ungated,
    init_params,
    params_like,
    run_stages,
    stored_stages,
)
from tsar_jax.networks.layers import ALL_POOLED
from tsar_jax.networks.regulated import gate_weights, regulate
from tsar_jax.plasticity.masks import mask

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NETWORK = TSAR(channels=3, regulator_channels=2, classes=5)
IMAGES = np.random.default_rng(1).normal(size=(3, 28, 28, 1)).astype(np.float32)


@functools.cache
def params_of(network):
    rng = np.random.default_rng(0)
    shapes = params_like(network)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype) / 2, shapes)


def test_regulation_multiplies_what_has_a_gate():
    params = {"a": {"kernel": jnp.array([2.0, 3.0]), "bias": jnp.ones(1)}, "b": jnp.ones(2)}
    gates = {"a": {"kernel": jnp.array([[0.5, 0.0], [1.0, 2.0]])}}
    gated, axes = regulate(params, gates)
    np.testing.assert_array_equal(gated["a"]["kernel"], [[1.0, 0.0], [2.0, 6.0]])
    np.testing.assert_array_equal(gated["a"]["bias"], params["a"]["bias"])
    np.testing.assert_array_equal(gated["b"], params["b"])
    assert axes == {"a": {"kernel": 0, "bias": None}, "b": None}


def test_gradient_of_gated_weights_is_that_of_a_plain_product():
    rng = np.random.default_rng(3)
    weights, gates, cotangent = (rng.normal(size=s) for s in ((4, 5), (3, 4, 5), (3, 4, 5)))
    _, ours = jax.vjp(gate_weights, weights, gates)
    _, wanted = jax.vjp(jnp.multiply, weights, gates)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5),
        ours(jnp.asarray(cotangent, jnp.float32)),
        wanted(jnp.asarray(cotangent, jnp.float32)),
    )


def test_each_image_runs_in_the_classifier_that_its_own_gates_make():
    params = params_of(NETWORK)
    plain = Ungated(channels=3, classes=5, pools=ALL_POOLED)

    @jax.jit
    def both(params):
        _, gates = run_stages(NETWORK, params, IMAGES, 0, 2)
        logits = []
        for index in range(len(IMAGES)):
            own = jax.tree.map(lambda gate: gate[index : index + 1], gates)  # noqa: B023
            blocks = {name: gate for name, gate in own.items() if name != "head"}
            classifier = {
                "trunk": regulate(params["trunk"], blocks)[0],
                "head": regulate(params["head"], own["head"])[0],
            }
            classifier = jax.tree.map(
                lambda leaf, like: leaf.reshape(like.shape),
                classifier,
                {name: params[name] for name in classifier},
            )
            logits.append(run_stages(plain, classifier, IMAGES[index : index + 1])[0])
        return run_stages(NETWORK, params, IMAGES), jnp.stack(logits), gates

    ours, wanted, gates = both(params)
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)
    shapes = {name: gate["kernel"].shape for name, gate in gates.items()}
    assert shapes == {
        "block_0": (3, 3, 3, 3, 3),
        "block_1": (3, 3, 3, 3, 3),
        "block_2": (3, 3, 3, 3, 3),
        "head": (3, 3, 5),
    }


def test_initial_bias_silences_the_synapses():
    network = TSAR(channels=3, regulator_channels=2, classes=5, initial_bias=-8.0)
    gates = jax.jit(
        lambda key: run_stages(network, init_params(network, key), IMAGES * 1e-3, 0, 2)[1]
    )(jax.random.key(0))
    for gate in jax.tree.leaves(gates):
        assert np.median(gate) == pytest.approx(1 / (1 + np.exp(8)), rel=2)


def test_only_the_named_layers_are_regulated():
    network = TSAR(channels=3, regulator_channels=2, classes=5, regulated=("block_1",))
    params = params_of(network)
    assert set(params["regulator"]) == {"block_1"}
    logits, gates = jax.jit(
        lambda p: (run_stages(network, p, IMAGES), run_stages(network, p, IMAGES, 0, 2)[1])
    )(params)
    assert set(gates) == {"block_1"}
    assert logits.shape == (3, 5)


@pytest.mark.parametrize(
    ("regulated", "message"), [((), "regulated"), (("block_3",), "no layer to regulate 'block_3'")]
)
def test_layers_that_cannot_be_regulated_are_named(regulated, message):
    with pytest.raises(UserError, match=message):
        TSAR(regulated=regulated)


def test_gates_are_not_stored_for_a_data_set():
    params = params_of(NETWORK)
    assert stored_stages(NETWORK, mask(params, ("head",))) == 1
    assert stored_stages(NETWORK, mask(params, ("encoder",))) == 0


def test_full_width_has_the_published_number_of_weights():
    shapes = params_like(TSAR())
    regulator = sum(h["kernel"].size for h in shapes["regulator"].values())
    assert regulator == 1728 * 340_816
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert round(total / 1e6, 1) == 590.3
