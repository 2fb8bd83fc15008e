"""Continual-learning methods as learners of a composition: the same bits as in their own family."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.data.continual.registry import StreamSettings, make_stream
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.networks.classifier import Variables
from tsar_jax.networks.perceptron import make_perceptron
from tsar_jax.plasticity.methods import METHODS, Method, make_method, method_settings
from tsar_jax.systems.compose.composition import compose
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.learners.methods import find_learner, find_method
from tsar_jax.systems.compose.streams import find_stream
from tsar_jax.systems.continual.system import Experiment, make_spec

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIDE, CLASSES, UPDATES = 4, 4, 8
SETTINGS = {
    "er": {},
    "synergy": {
        "reg_weight": 0.5,
        "ema_update_freq": 0.7,
        "ema_alpha": 0.6,
        "penalty_weight": 2.0,
        "fisher_alpha": 0.8,
        "fisher_update_freq": 0.6,
    },
}
CONFIG = ComposeConfig(
    encoder="pixels",
    hidden=(5, 3),
    beta=2.0,
    classes=CLASSES,
    eval_classes=CLASSES,
    outputs=CLASSES,
    rate=0.2,
    buffer=5,
    replayed=3,
)
"""The buffer is full before the last update."""


@functools.cache
def noise() -> LabelledDataset:
    random = np.random.RandomState(0)

    def images(count: int) -> LabelledImages:
        pixels = random.randint(0, 256, (count, SIDE, SIDE)).astype(np.uint8)
        labels = np.arange(count, dtype=np.int32) % CLASSES
        return LabelledImages(pixels, labels, tuple("abcd"))

    return LabelledDataset("noise", images(24), images(8), "made for this test")


def experiment_of(name, weights) -> Experiment:
    """A method in batches of one, its network beginning with weights."""
    stream = make_stream("seq-noise", noise(), StreamSettings(1, 1, tasks=2, joint=False))
    net = make_perceptron((SIDE * SIDE, *CONFIG.hidden, CLASSES), CONFIG.beta)
    spec = make_spec(
        net._replace(init=lambda key: Variables(weights, {})),
        stream,
        learning_rate=float(jnp.exp(jnp.log(CONFIG.rate))),
        capacity=CONFIG.buffer,
        replay=CONFIG.replayed,
    )
    return Experiment(spec, make_method(name, **SETTINGS[name]), stream)


def composed(name):
    """The composition of the method, and its theta."""
    settings = method_settings(name, **SETTINGS[name])
    config = dataclasses.replace(CONFIG, learner=name, settings=settings)
    composition = compose(config, find_stream(config)._replace(shape=(SIDE, SIDE)))
    return composition, jax.jit(composition.init)(jax.random.key(1))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_composed_method_learns_to_the_same_bits_as_in_an_experiment(name) -> None:
    composition, theta = composed(name)
    experiment = experiment_of(name, theta["weights"])
    stream, data = experiment.stream, jax.device_put(experiment.stream.data)

    def inputs(images):
        return composition.sense(theta, stream.normalise(images))

    @jax.jit
    def example_of(run, key):
        """What the experiment's next step learns, and the key that it learns with."""
        batch_key, _, learn_key, _ = jax.random.split(key, 4)
        order_key = jax.random.wrap_key_data(run.stream_key)
        course = stream.shuffle(data, run.course, order_key, run.step)
        raw = stream.batch(data, course, batch_key, run.step)
        example = inputs(raw.images), raw.labels
        return jax.tree.map(lambda leaf: leaf[0], example), learn_key

    step, update = jax.jit(experiment.step), jax.jit(composition.learner.update)
    run = jax.jit(experiment.init)(jax.random.key(2), data)
    state = jax.jit(composition.learner.init)(theta, jax.random.key(3))
    for number in range(UPDATES):
        key = jax.random.key(10 + number)
        example, learn_key = example_of(run, key)
        state, _ = update(theta, state, example, learn_key)
        run, _ = step(run, data, key)
        theirs = run.learner
        chex.assert_trees_all_equal(state.net, theirs.net)
        chex.assert_trees_all_equal(state.memory, theirs.memory)
        chex.assert_trees_all_equal(state.buffer.items["labels"], theirs.buffer.items["labels"])
    assert CONFIG.buffer < int(state.buffer.seen) == UPDATES
    kept = stream.normalise(theirs.buffer.items["images"])
    np.testing.assert_array_equal(state.buffer.items["images"], kept.reshape(CONFIG.buffer, -1))
    moved = jax.tree.map(jnp.subtract, state.net.params, theta["weights"])
    assert min(jnp.abs(change).max() for change in moved) > 1e-3

    shown = jnp.asarray(noise().test.images)[..., None]
    found = composition.learner.predict(theta, state, inputs(shown))
    model = experiment.method.models(theirs)[experiment.method.reported]
    expected = experiment.spec.net.logits(model, stream.normalise(shown))
    np.testing.assert_array_equal(found, expected)


def test_hyper_parameters_left_open_are_the_published_ones_of_the_nearest_stream() -> None:
    config = dataclasses.replace(CONFIG, stream="permuted", learner="synergy", buffer=450)
    assert find_method("synergy", config).fisher_update_freq == 0.8
    assert find_method("synergy", dataclasses.replace(config, buffer=250)).fisher_update_freq == 0.4
    permuted = dataclasses.replace(config, learner="derpp", buffer=200)
    characters = dataclasses.replace(permuted, stream="characters")
    assert find_method("derpp", permuted) == make_method("derpp", alpha=1.0, beta=1.0)
    assert find_method("derpp", characters) != find_method("derpp", permuted)
    given = dataclasses.replace(permuted, settings=method_settings("derpp", alpha=0.25))
    assert find_method("derpp", given) == make_method("derpp", alpha=0.25, beta=1.0)


def test_a_method_of_ones_own_is_a_learner(monkeypatch) -> None:
    monkeypatch.setattr(METHODS, "_things", dict(METHODS))

    @METHODS.register("mine")
    @dataclasses.dataclass(frozen=True)
    class Mine(Method):
        """SGD by another name."""

    config = dataclasses.replace(CONFIG, learner="mine")
    component = find_learner("mine")(config, (3, 2), True)
    assert not component.replays
    theta = component.init(jax.random.key(0))
    example = jnp.ones(3), jnp.int32(1)
    keys = jax.random.split(jax.random.key(1))
    start = component.learner.init(theta, keys[0])
    state, outputs = component.learner.update(theta, start, example, keys[1])
    weights = theta["weights"][0]
    error = jax.nn.softmax(weights.sum(1)) - jnp.array([0.0, 1.0])
    np.testing.assert_allclose(outputs, weights.sum(1), rtol=1e-6)
    np.testing.assert_allclose(
        component.weights_of(state)[0], weights - 0.2 * error[:, None], rtol=1e-5
    )
    other = component.with_weights(state, theta["weights"])
    chex.assert_trees_all_equal(component.weights_of(other), theta["weights"])
