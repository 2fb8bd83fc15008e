"""What holds for every composition: gradients that finite differences confirm, and steps."""

import dataclasses
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tsar_jax.errors import UserError
from tsar_jax.plasticity.methods import METHODS, method_settings
from tsar_jax.systems.compose.composition import compose
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.learners import LEARNERS
from tsar_jax.systems.compose.lifetimes import image_objective, lifetime_keys
from tsar_jax.systems.compose.meta_optimisers import META_OPTIMISERS
from tsar_jax.systems.compose.modulations import MODULATIONS
from tsar_jax.systems.compose.networks import NETWORKS, perceptron, register_network
from tsar_jax.systems.compose.streams import STREAMS, find_stream
from tsar_jax.systems.compose.system import make_system

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIDE = 3
TOY = ComposeConfig(
    encoder="pixels",
    modulator_encoder="pixels",
    hidden=(3,),
    beta=1.0,
    classes=2,
    learn=2,
    query=2,
    tasks=2,
    outputs=6,
    buffer=3,
    replayed=2,
    episode_steps=40,
    population=4,
    segment=2,
    eval_classes=2,
    eval_lifetimes=2,
)
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 6, SIDE, SIDE)).astype(np.uint8)
DATA = {"train": jnp.asarray(IMAGES), "test": jnp.asarray(IMAGES[::-1])}
KEY = jax.random.key(1)
STEP = 1e-6
"""Length of a step of the finite differences, in 64 bits."""

REPLAYING = ("replay", *(name for name in LEARNERS if name in METHODS and name != "sgd"))
QUICK_REPLAYING = ("replay", "synergy")
CORNERS = [("sgd", modulation) for modulation in MODULATIONS] + [
    (name, "activations") for name in LEARNERS if name not in REPLAYING or name in QUICK_REPLAYING
]
SENSELESS = {("fixed", "updates"), ("fixed", "layers"), *((name, "weights") for name in REPLAYING)}
"""Pairs that are refused."""
PAIRS = [
    pytest.param(*pair, marks=[] if pair in CORNERS else pytest.mark.slow)
    for pair in ((learner, modulation) for learner in LEARNERS for modulation in MODULATIONS)
    if pair not in SENSELESS
]


def toy(stream):
    """The stream with images of nine pixels; an environment as it is."""
    return stream._replace(shape=(SIDE, SIDE)) if hasattr(stream, "draw") else stream


def norm(tree):
    return float(optax.global_norm(tree))


@pytest.mark.parametrize(("learner", "modulation"), PAIRS)
def test_the_gradient_through_a_lifetime_is_that_of_finite_differences(learner, modulation) -> None:
    config = dataclasses.replace(TOY, learner=learner, modulation=modulation)
    stream = toy(find_stream(config))
    with jax.enable_x64(True):
        composition = compose(config, stream)
        objective = image_objective(config, composition, stream, DATA["train"], config.classes)
        theta = jax.jit(composition.first)(jax.random.key(0))
        theta = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), theta)
        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), theta)
        value_and_gradient = jax.jit(jax.value_and_grad(objective.whole, has_aux=True))

        def moved(by):
            return jax.tree.map(lambda leaf, d: leaf + by * d, theta, direction)

        (loss, _), gradient = value_and_gradient(theta, KEY)
        (above, _), _ = value_and_gradient(moved(STEP), KEY)
        (below, _), _ = value_and_gradient(moved(-STEP), KEY)
        along = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
    np.testing.assert_allclose(along, (above - below) / (2 * STEP), rtol=1e-5, atol=1e-7)
    assert np.isfinite(loss)
    for name, part in gradient.items():
        assert norm(part) > 0, name


@functools.cache
def after_two_steps(config):
    """The meta-learned parts of theta before and after two steps, and the metrics."""
    system = make_system(config, toy(find_stream(config)))
    step = jax.jit(system.step)
    first = jax.jit(system.init)(jax.random.key(0))
    second, _, _ = step(first, DATA, jax.random.key(1))
    third, metrics, _ = step(second, DATA, jax.random.key(2))
    assert jax.tree.structure(first) == jax.tree.structure(third)
    return first.theta, third.theta, metrics, jax.jit(system.evaluate)(third, DATA, KEY)


def assert_learned(config):
    before, after, metrics, evaluated = after_two_steps(config)
    for name, part in after.items():
        assert np.isfinite(norm(part))
        difference = jax.tree.map(lambda new, old: new - old, part, before[name])
        assert norm(difference) > 0, name
    assert all(np.isfinite(value) for value in {**metrics, **evaluated}.values())
    return metrics


QUICK_ES = [("hebbian", "openai_es"), ("replay", "pes")]
ES = [(learner, meta) for learner in LEARNERS for meta in META_OPTIMISERS if meta != "gradient"]


@pytest.mark.parametrize(
    ("learner", "meta_optimiser"),
    [pytest.param(*pair, marks=[] if pair in QUICK_ES else pytest.mark.slow) for pair in ES],
)
def test_every_learner_is_improved_by_every_meta_optimiser(learner, meta_optimiser) -> None:
    assert_learned(dataclasses.replace(TOY, learner=learner, meta_optimiser=meta_optimiser))


SUPERVISED = ("characters", "handwriting", "emnist", "permuted")


@pytest.mark.parametrize(
    ("learner", "stream"),
    [
        pytest.param(*pair, marks=[] if pair == ("rule", "permuted") else pytest.mark.slow)
        for pair in ((learner, stream) for learner in LEARNERS for stream in SUPERVISED)
    ],
)
def test_every_learner_learns_on_every_stream_of_images(learner, stream) -> None:
    modulation = "activations" if learner == "fixed" else "layers"
    config = dataclasses.replace(TOY, learner=learner, stream=stream, modulation=modulation)
    assert_learned(config)


@pytest.mark.parametrize(
    ("learner", "stream", "meta_optimiser"),
    [
        ("hebbian", "cart_pole", "openai_es"),
        # The reward of a pole that stands is the same for all, and a part is short.
        ("hebbian", "pendulum", "pes"),
        pytest.param("hebbian", "pendulum", "openai_es", marks=pytest.mark.slow),
        pytest.param("fixed", "pendulum", "openai_es", marks=pytest.mark.slow),
        pytest.param("fixed", "pendulum", "pes", marks=pytest.mark.slow),
    ],
)
def test_unsupervised_learners_live_in_environments(learner, stream, meta_optimiser) -> None:
    config = dataclasses.replace(
        TOY,
        learner=learner,
        stream=stream,
        meta_optimiser=meta_optimiser,
        modulation="updates",
        sharing="synapse",
        sigma=0.5,
    )
    if learner == "fixed":
        config = dataclasses.replace(config, modulation="none")
    metrics = assert_learned(config)
    (earned,) = (value for name, value in metrics.items() if name.endswith("return"))
    # A pole that nobody holds has fallen by then, and at other times than one that is held.
    assert stream != "cart_pole" or 8 < earned < TOY.episode_steps


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"learner": "sgdd"}, "no learner 'sgdd': .*nearest is sgd"),
        ({"modulation": "gate"}, "no modulation 'gate'"),
        ({"stream": "letters"}, "no stream 'letters'"),
        ({"meta_optimiser": "es"}, "no meta-optimiser 'es'"),
        ({"meta_learned": ("rate",)}, "no part of theta 'rate': .*nearest is rates"),
        ({"learner": "rule", "meta_learned": ("rates",)}, "no part of theta 'rates'"),
        (
            {"stream": "cart_pole", "learner": "rule", "meta_optimiser": "pes"},
            "The learner rule descends an error, but the stream gives no targets",
        ),
        (
            {"stream": "cart_pole", "learner": "hebbian"},
            "The reward of cart_pole has no gradient .*take openai_es or pes",
        ),
        ({"network": "anm"}, "no network 'anm': .*nearest is anml"),
        (
            {"network": "anml", "hidden": (), "encoder": "conv", "beta": 10.0},
            "The network anml takes images of 28x28, which characters does not",
        ),
        ({"network": "oml", "hidden": ()}, "The network oml has one hidden layer, but hidden is"),
        ({"network": "anml", "hidden": (5,)}, r"hidden is \(5,\), but the network anml does not"),
        (
            {"network": "anml", "hidden": (), "encoder": "conv", "beta": 2.0},
            "beta is 2.0, but the network anml does not take it: leave it at 10.0",
        ),
        (
            {"learner": "feedback_alignment", "terms": ("oja",)},
            "terms is .*, but the learner feedback_alignment does not take it: leave it at",
        ),
        ({"stream": "permuted", "remember": 3}, "remember is 3, but the stream permuted does not"),
        ({"not_meta_learned": ("rats",)}, "no part of theta 'rats': .*nearest is rates"),
        (
            {"learner": "rule", "not_meta_learned": ("coefficients", "encoder")},
            "Nothing is meta-learned, since not_meta_learned is",
        ),
        ({"learner": "rule", "network": "tsar"}, "The learner rule changes a perceptron, not the"),
        (
            {"stream": "episodes", "meta_optimiser": "openai_es"},
            "The stream episodes draws output rows anew .*take gradient",
        ),
        ({"encoder": "conv"}, "encoder is conv, whose images are 28x28, but the stream's are 3x3"),
        (
            {"modulator_encoder": "conv", "modulation": "layers"},
            "modulator_encoder is conv, whose images are 28x28",
        ),
        ({"meta_learned": ("feedback",), "learner": "rule"}, "No gradient reaches the feedback"),
        (
            {"meta_learned": ("feedback",), "learner": "rule", "feedback": "sym"},
            "feedback is empty under these settings",
        ),
        ({"learner": "fixed", "modulation": "layers"}, "act on updates, but the learner has none"),
        ({"learner": "replay", "modulation": "weights"}, "the learner replay learns several at"),
        ({"learner": "der", "modulation": "weights"}, "the learner der learns several at once"),
        (
            {"learner": "ewc_on"},
            "ewc_on must be told about tasks.* choose from sgd, er, der",
        ),
        ({"learner": "joint"}, "joint must be told about tasks"),
        ({"learner": "synergie"}, "no learner 'synergie': .*nearest is synergy"),
        (
            {"learner": "er", "stream": "cart_pole", "meta_optimiser": "pes"},
            "The learner er descends an error, but the stream gives no targets",
        ),
        ({"meta_optimiser": "pes", "segment": 3}, "segment is 3, which does not divide the 4"),
        ({"meta_optimiser": "pes", "population": 3}, "population must be an even number"),
    ],
)
def test_what_does_not_fit_together_is_said(settings, sentence) -> None:
    config = dataclasses.replace(TOY, **settings)

    def begin():
        jax.eval_shape(make_system(config, toy(find_stream(config))).init, KEY)

    with pytest.raises(UserError, match=sentence):
        begin()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sharing": "none"}, "no sharing 'none'"),
        ({"modulator_bias": float("nan")}, "modulator_bias must be a number, but is nan"),
        ({"initial_coefficient": float("inf")}, "initial_coefficient must be a number"),
        ({"classes": 7}, "outputs is 6, but a lifetime has up to 7 classes"),
        ({"segment": 0}, "segment must be at least 1"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"hebbian_rule": "ABCE"}, "no Hebbian rule 'ABCE'"),
        (
            {"learner": "er", "settings": method_settings("der", alpha=0.5)},
            "settings must be those of the learner er, but are .*DERSettings",
        ),
    ],
)
def test_impossible_settings_are_named(settings, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(TOY, **settings)


def test_no_gradient_reaches_an_encoder_through_inverted_updates() -> None:
    config = dataclasses.replace(TOY, learner="rule", remat="reconstruct", encoder="conv")
    with pytest.raises(UserError, match="no gradient reaches the encoder: take remat store"):
        make_system(config, find_stream(config))


@pytest.mark.parametrize("modulation", ["weights", "updates"])
def test_gates_are_the_same_in_advance_and_one_by_one(modulation) -> None:
    config = dataclasses.replace(TOY, modulation=modulation)
    stream = toy(find_stream(config))
    found = []
    for images in (1, 10**9):
        composition = compose(config, stream, images=images)
        lives = image_objective(config, composition, stream, DATA["train"], config.classes)
        theta = jax.jit(composition.first)(jax.random.key(0))
        found.append(jax.jit(jax.value_and_grad(lives.whole, has_aux=True))(theta, KEY))
        seen, _ = jax.jit(composition.sense)(composition.init(KEY), jnp.ones((2, SIDE, SIDE, 1)))
        assert isinstance(seen, tuple) == (images == 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *found)


def test_inverted_updates_have_the_gradient_of_stored_ones() -> None:
    config = dataclasses.replace(TOY, learner="rule", initial_coefficient=0.1)
    stream, found = toy(find_stream(config)), []
    for remat in ("store", "reconstruct"):
        config = dataclasses.replace(config, remat=remat)
        composition = compose(config, stream)
        lives = image_objective(config, composition, stream, DATA["train"], config.classes)
        theta = jax.jit(composition.first)(jax.random.key(0))
        step = jax.jit(jax.value_and_grad(lives.whole, has_aux=True))
        (loss, metrics), gradient = step(theta, KEY)
        assert ("online_accuracy" in metrics) == (remat == "store")
        found.append((loss, gradient))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *found)


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_in_first_order_every_part_is_learned_and_the_loss_is_the_same(modulation) -> None:
    """Learning rates too, whose effect is not of the gradients that are constant."""
    config = dataclasses.replace(TOY, modulation=modulation)
    stream, found = toy(find_stream(config)), []
    for order in ("first", "second"):
        config = dataclasses.replace(config, order=order)
        composition = compose(config, stream)
        lives = image_objective(config, composition, stream, DATA["train"], config.classes)
        theta = jax.jit(composition.first)(jax.random.key(0))
        step = jax.jit(jax.value_and_grad(lives.whole, has_aux=True))
        (loss, _), gradient = step(theta, KEY)
        for name, part in gradient.items():
            assert norm(part) > 0, (order, name)
        found.append((loss, norm(gradient["weights"])))
    (first, of_first), (second, of_second) = found
    np.testing.assert_allclose(first, second, rtol=1e-6)
    assert abs(of_first - of_second) > 1e-4 * of_second


def test_what_a_preset_leaves_out_of_meta_learning_does_not_hide_another_modulator() -> None:
    config = dataclasses.replace(TOY, not_meta_learned=("rates", "feedback"))
    for modulation, wanted in (("none", {"weights"}), ("layers", {"weights", "modulator"})):
        config = dataclasses.replace(config, modulation=modulation)
        assert set(compose(config, toy(find_stream(config))).meta_learned) == wanted


def test_a_network_of_ones_own_sees_the_features_of_an_encoder(monkeypatch) -> None:
    monkeypatch.setattr(NETWORKS, "_things", dict(NETWORKS))

    @register_network("mine", on_images=False)
    def mine(config, sizes):
        return perceptron(config, sizes)

    config = dataclasses.replace(TOY, network="mine", encoder="conv", channels=2, hidden=())
    composition = compose(config, find_stream(config))
    theta = jax.eval_shape(composition.init, KEY)
    assert theta["weights"][0].shape == (TOY.outputs, 18)
    assert "encoder" in composition.meta_learned


@pytest.mark.parametrize("learner", ["sgd", pytest.param("rule", marks=pytest.mark.slow)])
def test_episodes_forget_a_perceptrons_rows_of_all_lifetimes(learner) -> None:
    config = dataclasses.replace(
        TOY,
        learner=learner,
        stream="episodes",
        classes=1,
        lifetimes=2,
        outputs=12,
        hidden=(),
        meta_learned=("weights",),
        meta_rate=1e-3,
        repeat_first=True,
    )
    stream = toy(find_stream(config))
    system = make_system(config, stream)
    first, key = jax.jit(system.init)(jax.random.key(0)), jax.random.key(5)
    after, metrics, _ = jax.jit(system.step)(first, DATA, key)
    keys = jax.random.split(key, config.lifetimes)
    forgotten = {
        int(stream.draw(DATA["train"], lifetime_keys(k).stream, 1).reset_classes[0]) for k in keys
    }
    assert len(forgotten) == 2
    moved = np.abs(after.theta["weights"][0] - first.theta["weights"][0]).max(1)
    assert set(np.flatnonzero(moved > 2e-3)) == forgotten
    assert np.isfinite(metrics["loss"])
    episode = stream.draw(DATA["train"], KEY, 1)
    assert len(episode.trajectory) == config.learn + 1 == stream.length(1)
    assert episode.trajectory[0] == episode.trajectory[1]


def test_a_lifetime_draws_anew_what_is_not_meta_learned() -> None:
    config = dataclasses.replace(TOY, meta_learned=("rates",))
    composition = compose(config, toy(find_stream(config)))
    first = jax.jit(composition.first)(KEY)
    assert set(first) == {"rates"}
    one, other = (jax.jit(composition.complete)(first, jax.random.key(i)) for i in range(2))
    assert norm(jax.tree.map(lambda a, b: a - b, one["weights"], other["weights"])) > 0
    np.testing.assert_array_equal(one["rates"], first["rates"])


def test_the_learner_of_the_documentation_learns(monkeypatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "compose.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setattr(LEARNERS, "_things", dict(LEARNERS))
    exec(code, {"__name__": "mine"})
    assert_learned(dataclasses.replace(TOY, learner="delta", modulation="activations"))


def test_what_is_drawn_for_a_modulator_is_not_what_is_drawn_for_weights() -> None:
    config = dataclasses.replace(TOY, hidden=(40,), modulation="activations")
    theta = jax.jit(compose(config, toy(find_stream(config))).init)(KEY)
    arrays = [np.ravel(leaf) for leaf in jax.tree.leaves(theta) if np.ptp(leaf) > 0]
    for index, one in enumerate(arrays):
        for other in arrays[:index]:
            size = min(one.size, other.size)
            assert abs(np.corrcoef(one[:size], other[:size])[0, 1]) < 0.7


def test_convolutions_encode_for_learner_and_modulator() -> None:
    config = dataclasses.replace(
        TOY,
        encoder="conv",
        modulator_encoder="conv",
        channels=2,
        modulator_channels=1,
        modulation="layers",
        hidden=(),
    )
    composition = compose(config, find_stream(config))
    theta = jax.jit(composition.init)(KEY)
    images = jax.random.uniform(KEY, (2, 28, 28, 1))
    codes, features = jax.jit(composition.sense)(theta, images)
    assert (codes.shape, features.shape) == ((2, 9), (2, 18))
    assert set(composition.meta_learned) == {"weights", "rates", "encoder", "modulator"}
    assert not np.array_equal(features[0], features[1])


def test_a_lifetime_that_diverges_does_not_end_the_training_of_others() -> None:
    """Of evolution: its loss is the mean of those that are finite."""
    config = dataclasses.replace(TOY, meta_optimiser="pes", sigma=200.0, meta_learned=("rates",))
    system = make_system(config, toy(find_stream(config)))
    state, step = jax.jit(system.init)(jax.random.key(0)), jax.jit(system.step)
    for number in range(4):
        state, metrics, _ = step(state, DATA, jax.random.key(number))
        assert np.isfinite(metrics["loss"])
        assert all(
            np.isfinite(leaf).all()
            for leaf in jax.tree.leaves(state)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        )


def test_an_environment_of_images_is_refused() -> None:
    config = dataclasses.replace(TOY, learner="hebbian", meta_optimiser="pes", stream="cart_pole")
    images = find_stream(config)._replace(observation_shape=(84, 84, 3))
    with pytest.raises(UserError, match=r"of shape \(84, 84, 3\), but a perceptron takes vectors"):
        make_system(config, images)


def test_choices_of_all_kinds_are_registered_by_name() -> None:
    assert set(STREAMS) == {*SUPERVISED, "episodes", "cart_pole", "pendulum"}
    assert set(META_OPTIMISERS) == {"gradient", "openai_es", "pes"}
