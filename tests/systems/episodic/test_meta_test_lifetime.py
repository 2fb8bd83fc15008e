"""Lifetimes of a meta-test: Adam on one image after another, batches, re-initialisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.data.episodes import draw_stream
from tsar_jax.networks import OML, Ungated, params_like
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic import meta_test_lifetime
from tsar_jax.systems.episodic.meta_test_lifetime import (
    LifetimeSpec,
    bytes_per_lifetime,
    frozen_activations,
    learn_stream,
    map_in_batches,
    reinitialise,
    run_lifetime,
    run_lifetimes,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NETWORK = Ungated(channels=2, classes=9)


def random_params(network=NETWORK, seed=0):
    rng = np.random.default_rng(seed)
    shapes = params_like(network)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype) / 3, shapes)


PARAMS = random_params()
HEAD = mask(PARAMS, ("head",))


def adam_on_logits(kernel, bias, activations, labels, rate):
    """Kingma and Ba (2015) on softmax regression, in NumPy."""
    weights = [kernel.astype(np.float64), bias.astype(np.float64)]
    first, second = [0.0, 0.0], [0.0, 0.0]
    losses = []
    for time, (activation, label) in enumerate(zip(activations, labels, strict=True), start=1):
        logits = activation @ weights[0] + weights[1]
        probability = np.exp(logits - logits.max())
        probability /= probability.sum()
        losses.append(-np.log(probability[label]))
        error = probability - np.eye(len(probability))[label]
        for index, gradient in enumerate((np.outer(activation, error), error)):
            first[index] = 0.9 * first[index] + 0.1 * gradient
            second[index] = 0.999 * second[index] + 0.001 * gradient**2
            mean, square = first[index] / (1 - 0.9**time), second[index] / (1 - 0.999**time)
            weights[index] = weights[index] - rate * mean / (np.sqrt(square) + 1e-8)
    return *weights, losses


def test_learning_the_head_is_adam_on_the_logits():
    rng = np.random.default_rng(1)
    activations = rng.normal(size=(7, 18)).astype(np.float32)
    index, labels = np.array([3, 0, 6, 6, 1]), np.array([2, 8, 2, 0, 5])
    learn = jax.jit(
        lambda p, s, i: learn_stream(NETWORK, p, HEAD, s, labels, learning_rate=0.05, index=i),
    )
    learned, losses = learn(PARAMS, activations, index)
    head = PARAMS["head"]
    kernel, bias, wanted = adam_on_logits(
        head["kernel"], head["bias"], activations[index], labels, 0.05
    )
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)
    np.testing.assert_allclose(learned["head"]["kernel"], kernel, atol=1e-4)
    np.testing.assert_allclose(learned["head"]["bias"], bias, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, learned["trunk"], PARAMS["trunk"])
    one_row_each, _ = jax.jit(
        lambda p, s: learn_stream(NETWORK, p, HEAD, s, labels, learning_rate=0.05)
    )(PARAMS, activations[index])
    np.testing.assert_allclose(one_row_each["head"]["kernel"], kernel, atol=1e-4)


SPEC = LifetimeSpec(classes=3, population=6, learn=2)
KEYS = jax.random.split(jax.random.key(2), 5)
RATES = np.array([0.3, 0.03, 0.01, 0.003, 0.001], np.float32)


@functools.cache
def runs(memory):
    activations = np.random.default_rng(3).normal(size=(8 * 5, 18)).astype(np.float32)
    run = jax.jit(
        lambda p, s, k, r: run_lifetimes(NETWORK, p, HEAD, s, SPEC, 5, k, r, memory_budget=memory)
    )
    return jax.device_get(run(PARAMS, activations, KEYS, RATES))


@pytest.mark.parametrize("memory", [0, 2])
def test_a_run_is_traced_once(memory):
    traced = []

    def run(factor, key, rate):
        traced.append(key)
        return {"found": factor * rate * jax.random.uniform(key, (2,))}

    rates, keys = jnp.arange(3.0), jax.random.split(jax.random.key(0), 3)
    many = jax.jit(
        lambda f, k, r: map_in_batches(run, f, k, r, lifetime_bytes=1, memory_budget=memory)
    )
    found = many(jnp.float32(2), keys, rates)["found"]
    assert len(traced) == 1
    drawn = [jax.random.uniform(key, (2,)) for key in keys]
    wanted = [2 * rate * uniform for rate, uniform in zip(rates, drawn, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_runs_do_not_depend_on_how_many_fit_into_memory():
    memory = 2 * bytes_per_lifetime(PARAMS, HEAD)  # five runs: two batches and one left over
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), runs(memory), runs(2**30)
    )


def test_bytes_of_a_run_are_weights_gradient_and_two_moments():
    assert bytes_per_lifetime(PARAMS, HEAD) == 4 * 4 * (18 * 9 + 9)


def test_test_accuracy_is_the_mean_over_classes():
    found = runs(2**30)
    assert {name: value.shape for name, value in found.items()} == {
        "train": (5,),
        "test": (5,),
        "per_class": (5, 3),
    }
    np.testing.assert_allclose(found["test"], found["per_class"].mean(1), rtol=1e-6)
    # 3 held-out images a class, 2 learned
    assert np.allclose(found["per_class"] * 3 % 1, 0, atol=1e-5)
    assert np.allclose(found["train"] * 6 % 1, 0, atol=1e-5)
    assert len(set(found["test"])) > 1


def test_a_run_draws_the_stream_that_its_spec_says(monkeypatch):
    seen = []

    def recorded(key, **options):
        seen.append(options)
        return draw_stream(key, **options)

    monkeypatch.setattr(meta_test_lifetime, "draw_stream", recorded)
    spec = LifetimeSpec(classes=3, population=6, learn=2, class_order="data", iid=True, epochs=2)
    activations = jax.ShapeDtypeStruct((40, 18), np.float32)

    def run(params, activations, key, rate):
        return run_lifetime(NETWORK, params, HEAD, activations, spec, 5, key, rate)

    jax.eval_shape(run, PARAMS, activations, KEYS[0], RATES[0])
    wanted = {"population": 6, "classes": 3, "learn": 2, "per_class": 5, "epochs": 2, "iid": True}
    assert seen == [{**wanted, "class_order": "data"}]


def test_classes_are_told_apart_where_their_activations_are():
    """Images of a class have the same activations, or the held-out ones those of another class."""
    eye = np.eye(18, dtype=np.float32)
    activations = np.stack([np.tile(eye[c], (5, 1)) for c in range(8)])
    mixed = activations.copy()
    mixed[:, 2:] = activations[::-1, 2:]
    spec = LifetimeSpec(classes=8, population=8, learn=2, epochs=2, iid=True)
    run = jax.jit(
        lambda p, s: run_lifetimes(
            NETWORK, p, HEAD, s, spec, 5, KEYS[:1], jnp.array([0.3]), memory_budget=2**20
        )
    )
    right = run(PARAMS, activations.reshape(-1, 18))
    assert (float(right["train"][0]), float(right["test"][0])) == (1.0, 1.0)
    wrong = run(PARAMS, mixed.reshape(-1, 18))
    assert (float(wrong["train"][0]), float(wrong["test"][0])) == (1.0, 0.0)


@pytest.mark.parametrize("everything", [False, True])
def test_reinitialising_redraws_the_head_or_everything_plastic(everything):
    network = OML(channels=2, hidden_features=40, classes=30)
    params = random_params(network)
    plastic = mask(params, ("hidden", "head"))
    start = jax.device_get(
        jax.jit(lambda p, k: reinitialise(network, p, plastic, k, everything=everything))(
            params, jax.random.key(7)
        )
    )
    assert jax.tree.structure(start) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, start["representation"], params["representation"])
    np.testing.assert_array_equal(start["head"]["bias"], 0)
    kernel = start["head"]["kernel"]
    assert kernel.std() == pytest.approx(np.sqrt(2 / 40), rel=0.1)
    assert (kernel != params["head"]["kernel"]).all()
    same = np.array_equal(start["hidden"]["kernel"], params["hidden"]["kernel"])
    assert same != everything
    assert np.array_equal(start["hidden"]["bias"], np.zeros(40)) == everything


def test_activations_are_the_features_of_every_image_in_order():
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 28, 28), np.uint8)
    together, apart = jax.jit(
        lambda p, x: (
            frozen_activations(NETWORK, p, HEAD, x, pixels="unit"),
            jnp.stack([frozen_activations(NETWORK, p, HEAD, x[1:2], pixels="unit")[1]]),
        )
    )(PARAMS, images)
    assert together.shape == (6, 18)
    np.testing.assert_allclose(together[3], apart[0], rtol=1e-4, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 1e-3
