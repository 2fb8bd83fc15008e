"""The ANML system: forgetting, one step, a short training, and settings that cannot be."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.data.episodes import Pixels, draw_episode, scale_omniglot
from tsar_jax.errors import UserError
from tsar_jax.networks import (
    ANML,
    OML,
    Ungated,
    forget_classes,
    params_like,
)
from tsar_jax.systems.episodic import anml as anml_system
from tsar_jax.systems.episodic import meta_test_lifetime
from tsar_jax.systems.episodic import system as episodic
from tsar_jax.systems.episodic import tsar as tsar_system
from tsar_jax.systems.episodic.anml import MODELS, AnmlConfig, make_network, make_system
from tsar_jax.systems.episodic.system import check_data
from tsar_jax.systems.episodic.tsar import TsarConfig
from tsar_jax.training.loop import train
from tsar_jax.training.run import Run

pytestmark = pytest.mark.usefixtures("quickly_compiled")

CONFIG = AnmlConfig(
    steps=60,
    chunk=5,
    eval_every=None,
    checkpoint_every=None,
    channels=4,
    gate_channels=2,
    outputs=14,
    train_classes=12,
    inner_updates=4,
    remember=32,
    inner_rate=0.02,
    meta_rate=0.01,
    microbatch=512,  # all at once compiles faster
    eval_classes=2,
    eval_runs=1,
    eval_rates=(0.01,),
)


class Quiet:
    """Progress that says nothing."""

    def update(self, *_): ...

    def message(self, *_): ...

    def close(self): ...


def replace(**changes):
    return AnmlConfig(**{**vars(CONFIG), **changes})


@pytest.fixture(scope="module")
def data():
    """Each class is a pattern of its own; its images differ by noise."""
    rng = np.random.default_rng(0)

    def images(classes):
        patterns = np.kron(rng.integers(0, 2, (classes, 1, 7, 7)), np.ones((4, 4)))
        noise = rng.integers(-20, 20, (classes, 20, 28, 28))
        return (127 + 100 * (patterns - 0.5) + noise).astype(np.uint8)

    return {"background": images(13), "evaluation": images(3)}


def shapes_of(data):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), data)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A short training, and how often its step was traced."""
    traces = []
    system = make_system(CONFIG)

    def step(*arguments):
        traces.append(1)
        return system.step(*arguments)

    run = Run(tmp_path_factory.mktemp("run") / "run", CONFIG, "anml")
    result = train(system._replace(step=step), data, CONFIG, run, progress=Quiet())
    return result, len(traces)


def test_training_traces_its_step_once(trained):
    assert trained[1] == 1


def test_training_lowers_the_loss(trained):
    losses = [row["loss"] for row in trained[0].metrics if row["split"] == "train"]
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < 0.75 * losses[0]


def test_training_evaluates_on_unseen_classes(trained):
    final = trained[0].metrics[-1]
    assert final["split"] == "eval"
    for name in ("accuracy", "meta_test_train", "meta_test_test"):
        assert 0 <= final[name] <= 1
    assert final["accuracy"] > 0.25  # twelve classes, fourteen outputs


def test_forgetting_redraws_the_rows_of_the_classes_alone():
    rng = np.random.default_rng(0)
    head = {"kernel": rng.normal(size=(900, 7)), "bias": rng.normal(size=7)}
    head = {name: leaf.astype(np.float32) for name, leaf in head.items()}
    theta = {"head": head, "trunk": {"kernel": np.ones((3, 3, 1, 2), np.float32)}}
    forget = jax.jit(forget_classes)
    after = jax.device_get(forget(theta, jnp.array([5, 2]), jax.random.key(0)))
    assert jax.tree.structure(after) == jax.tree.structure(theta)
    np.testing.assert_array_equal(after["trunk"]["kernel"], theta["trunk"]["kernel"])
    np.testing.assert_array_equal(after["head"]["bias"], head["bias"])
    kernel = after["head"]["kernel"]
    kept = [0, 1, 3, 4, 6]
    np.testing.assert_array_equal(kernel[:, kept], head["kernel"][:, kept])
    drawn = kernel[:, [2, 5]]
    assert (drawn != head["kernel"][:, [2, 5]]).all()
    for column in drawn.T:  # standard error of a deviation over 900 entries: 2.4 %
        assert column.std() == pytest.approx(np.sqrt(2 / 900), rel=0.1)
        assert abs(column.mean()) < 4 * np.sqrt(2 / 900) / 30
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.15
    other = forget(theta, jnp.array([5, 2]), jax.random.key(1))
    assert (np.asarray(other["head"]["kernel"])[:, 2] != kernel[:, 2]).all()


def test_several_episodes_of_several_classes_make_one_step(data):
    config = replace(model="oml", hidden_features=8, tasks=2, episodes=2)
    system = make_system(config)
    shapes = params_like(make_network(config))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype) / 3, shapes)
    opt_state = jax.eval_shape(system.init, jax.random.key(0)).opt_state
    state = episodic.State(params, jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), opt_state))
    step = jax.jit(system.step)
    (new, metrics, _), (again, _, _) = (step(state, data, jax.random.key(3)) for _ in range(2))
    assert metrics.keys() == {"loss", "accuracy"}
    assert np.isfinite(metrics["loss"])
    assert 0 <= metrics["accuracy"] <= 1
    jax.tree.map(np.testing.assert_array_equal, new, again)
    # Adam's first step moves an array by at most the rate; only redrawn columns go further.
    moved = np.abs(np.asarray(new.params["head"]["kernel"]) - params["head"]["kernel"]).max(0)
    redrawn = moved > 1.5 * config.meta_rate
    assert 2 <= redrawn.sum() <= 4
    assert not redrawn[12:].any()  # outputs of no training class
    before, after = (tree["representation"]["conv_1"]["kernel"] for tree in (params, new.params))
    rest = np.abs(np.asarray(after) - before)
    assert 0 < rest.max() <= 1.01 * config.meta_rate
    assert jax.tree.map(jnp.result_type, new) == jax.tree.map(jnp.result_type, state)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("order", ["first", "second"])
def test_step_lives_as_the_config_says(data, monkeypatch, model, order):
    seen = []
    original = episodic.meta_objective

    def recorded(network, theta, plastic, episode, **options):
        seen.append((plastic, episode, options))
        return original(network, theta, plastic, episode, **options)

    monkeypatch.setattr(episodic, "meta_objective", recorded)
    config = replace(model=model, order=order, remat=order == "second", hidden_features=3)
    system = make_system(config)
    key = jax.random.key(0)
    state = jax.eval_shape(system.init, key)
    new, _, _ = jax.eval_shape(system.step, state, shapes_of(data), key)
    assert new == state
    [(plastic, episode, options)] = seen
    assert options == {
        "learning_rate": config.inner_rate,
        "first_order": order == "first",
        "remat": order == "second",
    }
    assert {name for name, tree in plastic.items() if any(jax.tree.leaves(tree))} == {
        "anml": {"trunk", "head"},
        "ungated": {"trunk", "head"},
        "oml": {"hidden", "head"},
    }[model]
    assert all(jax.tree.leaves([plastic[name] for name in MODELS[model].plastic]))
    assert episode.trajectory.shape == (4,)
    assert episode.images.shape == (36, 28, 28, 1)


@pytest.mark.parametrize("pixels", get_args(Pixels))
def test_training_and_its_evaluation_scale_pixels_as_the_config_says(data, monkeypatch, pixels):
    seen = []

    def recorded(images, pixels):
        seen.append(pixels)
        return scale_omniglot(images, pixels)

    for module in (episodic, meta_test_lifetime):
        monkeypatch.setattr(module, "scale_omniglot", recorded)
    config, key = replace(pixels=pixels), jax.random.key(0)
    system = make_system(config)
    shapes = jax.eval_shape(system.init, key)
    jax.eval_shape(system.evaluate, shapes, shapes_of(data), key)
    assert seen == [pixels] * 2  # of known classes and of unseen ones
    episode = episodic.draw(config, jnp.asarray(data["background"]), key)
    assert seen == [pixels] * 3
    drawn = draw_episode(
        key, jnp.asarray(data["background"])[:12], tasks=1, updates=4, random_query=32
    ).images
    np.testing.assert_array_equal(episode.images, scale_omniglot(drawn, pixels))


@pytest.mark.parametrize(
    "config", [CONFIG, TsarConfig(channels=2, regulator_channels=2)], ids=lambda c: c.model
)
def test_forgetting_can_be_left_out(data, monkeypatch, config):
    """Without a gradient Adam moves nothing: what changes has been drawn anew."""
    monkeypatch.setattr(
        episodic, "meta_objective", lambda network, theta, *_, **__: (0 * norm(theta), {})
    )

    def changed(reset):
        changes = {"tasks": 2, "inner_updates": 4, "outputs": 14, "train_classes": 12}
        given = dataclasses.replace(config, **changes, reset=reset)
        make = anml_system if isinstance(config, AnmlConfig) else tsar_system
        system = make.make_system(given)
        state = jax.jit(system.init)(jax.random.key(0))
        new, _, _ = jax.jit(system.step)(state, data, jax.random.key(1))
        return jax.tree.map(lambda a, b: np.asarray(a) != b, state.params, new.params)

    forgotten, kept = changed(reset=True), changed(reset=False)
    assert not any(leaf.any() for leaf in jax.tree.leaves(kept))
    assert forgotten["head"].pop("kernel").any(0).sum() == 2
    assert not any(leaf.any() for leaf in jax.tree.leaves(forgotten))


def norm(tree):
    return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree))


def test_what_learns_can_be_chosen_by_name(data, monkeypatch):
    seen = []

    def recorded(network, theta, plastic, episode, **options):
        seen.append(plastic)
        return jnp.zeros(()), {}

    monkeypatch.setattr(episodic, "meta_objective", recorded)
    system = make_system(replace(plastic=("head/bias",)))
    key = jax.random.key(0)
    jax.eval_shape(system.step, jax.eval_shape(system.init, key), shapes_of(data), key)
    assert seen[0]["head"] == {"bias": True, "kernel": False}
    assert not any(jax.tree.leaves([seen[0]["trunk"], seen[0]["neuromodulator"]]))
    bad = make_system(replace(plastic=("tail",)))
    state = jax.eval_shape(bad.init, key)
    with pytest.raises(UserError, match="No parameter is called 'tail'"):
        jax.eval_shape(bad.step, state, shapes_of(data), key)


def test_networks_of_the_config():
    assert make_network(CONFIG) == ANML(microbatch=512, channels=4, gate_channels=2, classes=14)
    assert make_network(replace(model="oml", hidden_features=7, microbatch=2)) == OML(
        microbatch=2, channels=4, hidden_features=7, classes=14
    )
    assert make_network(replace(model="ungated")) == Ungated(microbatch=512, channels=4, classes=14)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({name: 0}, f"{name} must be at least 1, but is 0")
            for name in (
                "channels",
                "gate_channels",
                "hidden_features",
                "outputs",
                "tasks",
                "inner_updates",
                "episodes",
                "train_classes",
                "eval_classes",
                "eval_runs",
            )
        ),
        ({"microbatch": 0}, "microbatch must be at least 1, but is 0"),
        ({"inner_rate": 0.0}, "inner_rate must be positive"),
        ({"inner_rate": float("nan")}, "inner_rate must be positive"),
        ({"meta_rate": -1e-3}, "meta_rate must be positive"),
        ({"meta_rate": float("inf")}, "meta_rate must be positive"),
        ({"remember": -1}, "remember must be at least 0"),
        ({"eval_rates": ()}, "eval_rates must be positive"),
        ({"eval_rates": (1e-3, 0.0)}, "eval_rates must be positive"),
        ({"inner_updates": 20, "tasks": 3}, r"inner_updates \(20\) must be a multiple of tasks"),
        ({"steps": -1}, "steps must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        replace(**changes)


def test_all_images_at_a_time_are_a_setting():
    assert replace(microbatch=None).microbatch is None


DATA = {
    "background": jax.ShapeDtypeStruct((964, 20, 28, 28), jnp.uint8),
    "evaluation": jax.ShapeDtypeStruct((659, 20, 28, 28), jnp.uint8),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_classes": 965}, "train_classes is 965.*only 964 background classes"),
        ({"outputs": 900}, "train_classes is 963.*only 900 outputs"),
        ({"train_classes": 3, "tasks": 4}, "tasks is 4.*only 3 training classes"),
        ({"eval_classes": 660}, "eval_classes is 660.*only 650 evaluation classes"),
        ({"train_classes": 20, "outputs": 20}, "eval_classes is 50.*only 20 outputs"),
        ({"inner_updates": 21}, "inner_updates per task is 21.*only 20 images of a class"),
        ({"train_classes": 2, "remember": 41}, "remember is 41.*only 40 training images"),
    ],
)
def test_settings_that_the_data_cannot_serve_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        check_data(AnmlConfig(**changes), DATA)


@pytest.mark.parametrize("changes", [{}, {"train_classes": 964}, {"inner_updates": 40, "tasks": 2}])
def test_settings_that_the_data_can_serve_are_accepted(changes):
    check_data(AnmlConfig(**changes), DATA)


def test_evaluation_cannot_ask_for_more_classes_than_it_draws_from():
    with pytest.raises(UserError, match=r"eval_classes is 655.*only 650"):
        check_data(AnmlConfig(eval_classes=655), DATA)
