"""Presets that are published systems: their numbers, and steps of tiny ones on images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.systems.compose.composition import compose
from tsar_jax.systems.compose.lifetimes import lifetime_keys
from tsar_jax.systems.compose.presets import PRESETS
from tsar_jax.systems.compose.streams import find_stream
from tsar_jax.systems.compose.streams.characters import TRAIN_CLASSES
from tsar_jax.systems.compose.system import make_system
from tsar_jax.systems.episodic import anml_presets, tsar_presets
from tsar_jax.systems.episodic.tsar import CHANNELS, classifier_channels
from tsar_jax.systems.learned_rules import presets as rule_presets

pytestmark = pytest.mark.usefixtures("quickly_compiled")

EPISODIC = {
    "anml": (anml_presets.PRESETS["paper"].config, ("trunk", "head")),
    "oml": (anml_presets.PRESETS["paper-oml"].config, ("hidden", "head")),
    "tsar": (tsar_presets.PRESETS["paper"].config, ("trunk", "head")),
}


@pytest.mark.parametrize("name", EPISODIC)
def test_episodic_presets_have_the_numbers_of_their_own_script(name) -> None:
    ours, (theirs, _) = PRESETS[name].config, EPISODIC[name]
    for field in ("steps", "pixels", "outputs", "repeat_first", "remember", "order", "meta_rate"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert (ours.classes, ours.classes * ours.learn) == (theirs.tasks, theirs.inner_updates)
    assert (ours.rate, ours.lifetimes) == (theirs.inner_rate, theirs.episodes)
    assert theirs.train_classes == TRAIN_CLASSES
    assert theirs.reset
    if name == "tsar":
        assert ours.channels == classifier_channels(theirs) == CHANNELS["tsar"]
        assert ours.modulator_channels == theirs.regulator_channels
        assert ours.modulator_bias == theirs.initial_bias
    else:
        assert ours.channels == theirs.channels
    if name == "anml":
        assert (ours.modulator_channels, ours.modulator_bias) == (theirs.gate_channels, 0.0)
    if name == "oml":
        assert ours.hidden == (theirs.hidden_features,)
    meta_learned = set(compose(ours, find_stream(ours)).meta_learned)
    assert meta_learned == {"weights", "modulator"} - ({"modulator"} if name == "oml" else set())


def test_f_bio_has_the_numbers_of_its_own_script() -> None:
    ours, theirs = PRESETS["f-bio"].config, rule_presets.PRESETS["paper"].config
    names = ("steps", "seeds", "terms", "feedback", "meta_rate", "classes", "learn", "query")
    for field in (*names, "hidden", "beta"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.initial_coefficient == theirs.start
    assert compose(ours, find_stream(ours)).meta_learned == ("coefficients",)
    assert ours.remat == theirs.memory
    assert (theirs.split, theirs.fixed_images, theirs.replacement) == ("test", True, True)


TINY = {
    "channels": 2,
    "modulator_channels": 2,
    "outputs": 12,
    "learn": 3,
    "eval_classes": 2,
    "eval_lifetimes": 1,
    "seeds": 1,
}
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 28, 28)).astype(np.uint8)
DATA = {"train": jnp.asarray(IMAGES), "test": jnp.asarray(IMAGES)}


@pytest.mark.parametrize(
    "name", ["anml", *(pytest.param(n, marks=pytest.mark.slow) for n in ("oml", "tsar", "f-bio"))]
)
def test_a_tiny_one_takes_steps(name) -> None:
    preset = PRESETS[name].config
    tiny = TINY | {"query": 2}
    tiny |= {"hidden": (4,)} if preset.hidden else {}
    tiny |= {"remember": 4} if preset.stream == "episodes" else {}
    config = dataclasses.replace(preset, **tiny)
    stream = find_stream(config)
    system = make_system(config, stream)
    first = jax.jit(system.init)(jax.random.key(0))
    key = jax.random.key(1)
    after, metrics, _ = jax.jit(system.step)(first, DATA, key)
    assert np.isfinite(metrics["loss"])
    for part, tree in after.theta.items():
        moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), tree, first.theta[part])
        assert max(jax.tree.leaves(moved)) > 0, part
    assert np.isfinite(jax.jit(system.evaluate)(after, DATA, key)["loss"])
    if stream.forgets:
        assert_forgotten(config, stream, first.theta, after.theta, key)


def assert_forgotten(config, stream, before, after, key) -> None:
    """The learned class's output row is another one; Adam has moved all others by its first step,
    which is the learning rate.
    """
    lifetime = lifetime_keys(jax.random.split(key, 1)[0])
    (forgotten,) = stream.draw(DATA["train"], lifetime.stream, config.classes).reset_classes
    moved = np.abs(after["weights"]["head"]["kernel"] - before["weights"]["head"]["kernel"]).max(0)
    assert moved[forgotten] > 10 * config.meta_rate
    assert np.delete(moved, forgotten).max() < 1.1 * config.meta_rate
