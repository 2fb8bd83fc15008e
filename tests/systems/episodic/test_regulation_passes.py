"""The compiled passes against the transfer's own updates, made one by one, and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.networks import (
    TSAR,
    init_params,
    run_stages,
    stored_stages,
)
from tsar_jax.plasticity.gradient_learner import current_params
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.analysis import regulation as analysis
from tsar_jax.systems.episodic.analysis import regulation_passes as passes
from tsar_jax.systems.episodic.meta_test_lifetime import adam_learner
from tsar_jax.systems.episodic.transfer import TransferConfig, reinitialise_output
from tsar_jax.systems.episodic.tsar import TRANSFERRED

NETWORK = TSAR(channels=2, regulator_channels=2, classes=5, initial_bias=-1.0)
CLASSES, LEARN, RATE = 4, 3, 0.02
LABELS = np.repeat(np.arange(CLASSES), LEARN)


def normalise(images: jax.Array) -> jax.Array:
    return images[..., None] / 255.0


SPEC = passes.PassSpec(NETWORK, normalise, ("block_0", "block_1", "block_2", "head"), "block_2", 4)


@pytest.fixture(scope="module", autouse=True)
def double_precision(quickly_compiled):
    """Adam divides by small gradients: in float32 two programs part after a few updates."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def stream(double_precision):
    images = np.random.default_rng(0).integers(0, 256, (CLASSES * LEARN, 28, 28), np.uint8)
    return passes.ImageStream(jnp.asarray(images), jnp.asarray(LABELS))


@pytest.fixture(scope="module")
def learner_setup(double_precision):
    @jax.jit
    def fresh(key):
        return reinitialise_output(NETWORK, init_params(NETWORK, key), -0.5, jax.random.key(1))

    start = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), fresh(jax.random.key(0)))
    return passes.LearnerSetup(start, jnp.float64(RATE))


@pytest.fixture(scope="module")
def stepped(stream, learner_setup):
    """Every image's gates before its own update, one update after another; the last weights."""
    plastic = mask(learner_setup.params, TRANSFERRED["tsar"])
    learner = adam_learner(NETWORK, plastic, RATE)
    learned = learner.init(learner_setup.params, None)
    depth = stored_stages(NETWORK, plastic)

    @jax.jit
    def step(learned, image, label):
        params = current_params(learner_setup.params, plastic, learned)
        gates = run_stages(NETWORK, params, normalise(image[None]), 0, 2)[1]
        signal = run_stages(NETWORK, params, normalise(image[None]), 0, depth)
        example = jax.tree.map(lambda s: s[0], signal), label
        learned, _ = learner.update(learner_setup.params, learned, example, None)
        return learned, {layer: gate["kernel"][0].reshape(-1) for layer, gate in gates.items()}

    seen = []
    for image, label in zip(*stream, strict=True):
        learned, gates = step(learned, image, label)
        seen.append(jax.device_get(gates))
    gates = {layer: np.stack([image[layer] for image in seen]) for layer in seen[0]}
    return gates, current_params(learner_setup.params, plastic, learned)


@pytest.fixture(scope="module")
def learned(stream, learner_setup):
    return passes.collect_twice(passes.collect_learning, SPEC, learner_setup, stream)


def assert_counted(found, chosen, gates) -> None:
    """What was collected against loops over the gates [T, S] of every image, by layer."""
    for layer, values in gates.items():
        counted = found.layers[layer]
        sums = [values[label == LABELS].sum(0) for label in range(CLASSES)]
        np.testing.assert_allclose(counted.class_sums, sums, rtol=1e-6)
        np.testing.assert_array_equal(counted.class_counts, LEARN)
        wanted, _ = np.histogram(values, analysis.BINS, (0, 1))
        assert np.abs(np.cumsum(counted.regulation) - np.cumsum(wanted)).max() <= 2
        for place, threshold in enumerate(analysis.THRESHOLDS):
            np.testing.assert_array_equal(counted.fired[place], (values > threshold).sum(0))
    for layer in passes.CO_ACTIVE:
        for place, threshold in enumerate(analysis.THRESHOLDS):
            bits = np.unpackbits(np.asarray(found.bits[layer][:, place]), axis=-1)
            size = gates[layer].shape[1]
            np.testing.assert_array_equal(bits[:, :size], gates[layer] > threshold)
            assert not bits[:, size:].any()
    values = gates["block_2"]
    np.testing.assert_array_equal(chosen, analysis.between_percentiles(values.mean(0)))
    pairs = values[:-1, chosen].ravel(), values[1:, chosen].ravel()
    wanted, _, _ = np.histogram2d(*pairs, analysis.LAG_BINS, [(0, 1), (0, 1)])
    assert found.lag.counts.sum() == wanted.sum() == (len(LABELS) - 1) * chosen.sum()
    assert np.abs(np.asarray(found.lag.counts) - wanted).sum() <= 4


def test_learning_collects_what_each_update_saw(learned, stepped):
    found, _, chosen = learned
    gates, _ = stepped
    assert np.abs(gates["block_2"][-1] - gates["block_2"][0]).max() > 0.01
    assert_counted(found, chosen, gates)


def test_learning_ends_where_the_transfers_updates_do(learned, stepped, stream):
    _, output, _ = learned
    gates, after = stepped
    kernel = after["head"]["kernel"]
    means = gates["head"].reshape(CLASSES, LEARN, *kernel.shape).mean(1)
    np.testing.assert_allclose(output.means, means[..., :CLASSES], rtol=1e-6)
    np.testing.assert_allclose(output.weights, kernel[:, :CLASSES], rtol=1e-6)
    logits = run_stages(NETWORK, after, normalise(stream.images))
    assert float(output.accuracy) == pytest.approx(float((logits.argmax(-1) == LABELS).mean()))


def test_the_second_run_learns_the_same_bit_for_bit(learned, learner_setup, stream):
    found, output, chosen = learned
    again, other = passes.collect_learning(
        SPEC, learner_setup, stream, jnp.zeros(chosen.size, bool)
    )
    jax.tree.map(np.testing.assert_array_equal, again.layers, found.layers)
    jax.tree.map(np.testing.assert_array_equal, again.bits, found.bits)
    jax.tree.map(np.testing.assert_array_equal, other, output)
    assert again.lag.counts.sum() == 0


def frozen_gates(params, images):
    gates = run_stages(NETWORK, params, normalise(images), 0, 2)[1]
    return {name: np.asarray(g["kernel"]).reshape(len(images), -1) for name, g in gates.items()}


def test_frozen_collects_what_the_network_does_as_it_is(learner_setup, stream):
    found, output, chosen = passes.collect_twice(passes.collect_frozen, SPEC, learner_setup, stream)
    assert output is None
    assert_counted(found, chosen, frozen_gates(learner_setup.params, stream.images))


def test_the_output_layer_is_looked_at_once_everything_is_learned(learner_setup, stream, stepped):
    output = passes.learn_then_show(SPEC, learner_setup, stream)
    _, after = stepped
    kernel = after["head"]["kernel"]
    gates = frozen_gates(after, stream.images)["head"].reshape(CLASSES, LEARN, *kernel.shape)
    np.testing.assert_allclose(output.means, gates.mean(1)[..., :CLASSES], rtol=1e-6)
    np.testing.assert_allclose(output.weights, kernel[:, :CLASSES], rtol=1e-6)


def test_layers_that_are_not_regulated_are_not_collected(stream):
    network = NETWORK.clone(regulated=("block_2",))
    params = jax.jit(init_params, static_argnums=0)(network, jax.random.key(0))
    spec = passes.PassSpec(network, normalise, ("block_2",), "block_2", CLASSES)
    chosen = jnp.zeros(36, bool)
    learner_setup = passes.LearnerSetup(params, jnp.float32(RATE))
    found, output = passes.collect_learning(spec, learner_setup, stream, chosen)
    assert output is None
    assert list(found.layers) == list(found.bits) == ["block_2"]


def test_more_gates_than_can_be_counted_are_refused() -> None:
    params = {"regulator": {"block_2": {"bias": np.zeros(2**20)}}}
    labels = jax.ShapeDtypeStruct((2048,), np.int32)
    with pytest.raises(UserError, match=r"2048 images.*at most 2047"):
        passes.check_countable(params, ("block_2",), passes.ImageStream(labels, labels))


def test_images_come_class_after_class_each_once() -> None:
    """Each image is its own number here."""
    images = jnp.arange(5 * 6, dtype=jnp.int32).reshape(5, 6, 1, 1)
    config = TransferConfig(classes=4, learn=3, test=False)
    stream = passes.draw_image_stream(images, config, jax.random.key(0))
    np.testing.assert_array_equal(stream.labels, np.repeat(np.arange(4), 3))
    numbers = np.asarray(stream.images).reshape(4, 3)
    classes = numbers // 6
    assert (classes == classes[:, :1]).all()
    assert len(set(classes[:, 0].tolist())) == 4
    assert len(set(numbers.ravel().tolist())) == 12
