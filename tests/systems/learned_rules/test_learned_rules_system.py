"""Meta-training of plasticity rules: its episodes, its seeds, what it records."""

import dataclasses
import math
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsar_jax.data.rule_episodes import draw_rule_episode
from tsar_jax.errors import UserError
from tsar_jax.networks.feedback_network import init_weights
from tsar_jax.plasticity.rule_learner import Rule
from tsar_jax.plasticity.rules import find_terms
from tsar_jax.systems.learned_rules.episodes_file import read_episodes, write_episodes
from tsar_jax.systems.learned_rules.objective import alignment, angle
from tsar_jax.systems.learned_rules.rule_file import learned_rule
from tsar_jax.systems.learned_rules.system import (
    LearnedRuleConfig,
    check_data,
    columns,
    make_optimiser,
    make_system,
    record_shapes,
)
from tsar_jax.training.loop import make_keys, train
from tsar_jax.training.run import Run

pytestmark = pytest.mark.usefixtures("quickly_compiled")

TINY = LearnedRuleConfig(
    steps=3,
    seeds=2,
    classes=2,
    learn=3,
    query=2,
    hidden=(4,),
    per_layer=True,
    fixed_images=False,
    replacement=False,
)
CLASSES, EACH, SIDE = 6, 8, 3


def numbered_images():
    """Images that tell their class and their place in it: uint8 [classes, each, side, side]."""
    images = np.zeros((CLASSES, EACH, SIDE, SIDE), np.uint8)
    images[..., 0, 0] = 10 * (1 + np.arange(CLASSES))[:, None]
    images[..., 0, 1] = 10 * (1 + np.arange(EACH))
    return jnp.asarray(images)


@pytest.fixture(scope="module")
def system():
    return make_system(TINY, CLASSES, SIDE * SIDE)


@pytest.fixture(scope="module")
def stepped(system):
    """States before and after every step, the metrics and the arrays."""
    images = numbered_images()
    step = jax.jit(system.step)
    states, metrics, arrays = [system.init(jax.random.key(0))], [], []
    for number in range(TINY.steps):
        state, found, recorded = step(states[-1], images, jax.random.key(number))
        states.append(state)
        metrics.append(found)
        arrays.append(recorded)
    return states, metrics, arrays


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_an_episode_shows_different_images_of_a_few_classes(seed) -> None:
    lifetime = draw(jax.random.key(seed))
    shown, asked = (identify(*part) for part in lifetime)
    assert len(set(shown) | set(asked)) == 3 * (4 + 2)
    assert set(shown).isdisjoint(asked)
    counts = np.bincount([label for label, _ in shown], minlength=CLASSES)
    assert sorted(counts) == [0, 0, 0, 4, 4, 4]
    assert {label for label, _ in asked} == {label for label, _ in shown}


@partial(jax.jit, static_argnames=("fixed_images", "replacement"))
def draw(key, *, fixed_images=False, replacement=False):
    return draw_rule_episode(
        key,
        numbered_images(),
        classes=3,
        learn=4,
        query=2,
        fixed_images=fixed_images,
        replacement=replacement,
    )


def test_fixed_images_are_the_first_of_each_class_in_another_order_each_time() -> None:
    orders = []
    for seed in range(8):
        shown, asked = (identify(*part) for part in draw(jax.random.key(seed), fixed_images=True))
        classes = {label for label, _ in shown}
        assert sorted(shown) == [(label, place) for label in sorted(classes) for place in range(4)]
        assert sorted(asked) == [(label, place) for label in sorted(classes) for place in (4, 5)]
        orders.append([place for _, place in shown])
    assert len(set(map(tuple, orders))) == len(orders)


@pytest.mark.parametrize("fixed_images", [False, True])
def test_a_class_drawn_twice_shows_the_same_images_twice(fixed_images) -> None:
    repeats = 0
    for seed in range(30):
        lifetime = draw(jax.random.key(seed), fixed_images=fixed_images, replacement=True)
        shown, asked = (identify(*part) for part in lifetime)
        assert set(shown).isdisjoint(asked)
        counts = np.bincount([label for label, _ in shown], minlength=CLASSES)
        for label in np.flatnonzero(counts):
            times = counts[label] // 4
            for part, each in ((shown, 4), (asked, 2)):
                own = [place for one, place in part if one == label]
                assert sorted(own) == sorted([*set(own)] * times)
                assert len(set(own)) == each
        repeats += counts.max() > 4
    # 1 - (5/6)(4/6) = 44 % of episodes of 3 of 6 classes repeat one.
    assert 5 < repeats < 22


def test_as_published_a_fifth_of_the_episodes_repeat_a_class() -> None:
    images = jnp.zeros((47, 2, 1, 1), jnp.uint8)

    @jax.jit
    @jax.vmap
    def classes_of(key):
        lifetime = draw_rule_episode(
            key, images, classes=5, learn=1, query=1, fixed_images=True, replacement=True
        )
        return lifetime.examples[1]

    drawn = np.asarray(classes_of(jax.random.split(jax.random.key(0), 20_000)))
    repeating = np.mean([len(set(row)) < 5 for row in drawn.tolist()])
    np.testing.assert_allclose(repeating, 0.197, atol=0.01)
    assert set(drawn.ravel().tolist()) == set(range(47))


def identify(images, labels):
    """(class, place) of each image, read from its pixels; the label must be its class."""
    pixels = np.rint(np.asarray(images) * 255).astype(int)
    assert pixels.shape[1] == SIDE * SIDE
    np.testing.assert_array_equal(pixels[:, 0] // 10 - 1, labels)
    return [(int(a) // 10 - 1, int(b) // 10 - 1) for a, b in pixels[:, :2]]


def test_the_order_of_images_mixes_the_classes() -> None:
    labels = [np.asarray(draw(jax.random.key(seed)).examples[1]) for seed in range(20)]
    changes = np.mean([(np.diff(order) != 0).sum() for order in labels])
    assert changes > 5  # class after class would give 2; 12 images of 3 classes mixed, 8


def test_the_first_coefficient_starts_and_each_step_records_what_it_began_with(stepped) -> None:
    states, metrics, arrays = stepped
    np.testing.assert_array_equal(states[0].coefficients[..., 0], np.float32(TINY.start))
    assert not states[0].coefficients[..., 1:].any()
    for state, found, recorded in zip(states, metrics, arrays, strict=False):
        np.testing.assert_array_equal(recorded["theta"], state.coefficients)
        assert found["loss"] == recorded["loss"]
    assert not np.array_equal(states[-1].coefficients, states[0].coefficients)


def test_metrics_are_what_is_recorded_by_column(stepped) -> None:
    _, metrics, arrays = stepped
    for name, record in arrays[1].items():
        assert record.shape == record_shapes(TINY)[name]
        for column, index in columns(TINY, name, record.shape):
            np.testing.assert_array_equal(metrics[1][column], record[index], err_msg=column)
    assert {"layer_0_angle", "layer_2_theta_oja", "layer_1_orthonormality"} <= set(metrics[0])


def test_an_infinite_meta_gradient_is_left_out_where_gradients_are_clipped() -> None:
    optimiser = make_optimiser(dataclasses.replace(TINY, clip=1.0, rate_shares=(1.0, 0.5, 1.0)))
    state = optimiser.init(jnp.zeros(3))
    step, _ = optimiser.update(jnp.asarray([1.0, jnp.inf, 0.0]), state)
    np.testing.assert_array_equal(step, 0)
    step, _ = optimiser.update(jnp.asarray([1.0, 1.0, 0.0]), state)
    np.testing.assert_allclose(step / TINY.meta_rate, [-1, -0.5, 0], atol=1e-5)


def test_a_terms_coefficient_learns_at_its_share_of_the_rate() -> None:
    images, key = numbered_images(), jax.random.key(1)

    def first_steps(shares):
        system = make_system(dataclasses.replace(TINY, rate_shares=shares), CLASSES, SIDE * SIDE)
        state = system.init(jax.random.key(0))
        return system.step(state, images, key)[0].coefficients - state.coefficients

    shares = (1.0, 0.5, 0.02)
    np.testing.assert_allclose(first_steps(shares), first_steps(()) * np.asarray(shares), rtol=1e-4)


def test_clipping_bounds_the_meta_gradient() -> None:
    images, keys = numbered_images(), [jax.random.key(seed) for seed in (1, 2)]

    def first_moments(clip):
        """Adam's first moment after one step is a tenth of the gradient."""
        system = make_system(dataclasses.replace(TINY, clip=clip), CLASSES, SIDE * SIDE)
        step, start = jax.jit(system.step), system.init(jax.random.key(0))
        states = [step(start, images, key)[0] for key in keys]
        return [10 * np.asarray(optax.tree.get(state.opt_state, "mu")) for state in states]

    free = first_moments(None)
    norms = np.array([np.linalg.norm(moment) for moment in free])
    clip = float(norms.mean())
    assert norms.min() < clip < norms.max()
    for moment, gradient, norm in zip(first_moments(clip), free, norms, strict=True):
        np.testing.assert_allclose(moment, gradient * min(1, clip / norm), rtol=1e-4)


def test_held_out_classes_are_not_shown() -> None:
    config = dataclasses.replace(TINY, held_out=4)
    system = make_system(config, CLASSES, SIDE * SIDE)
    # Two classes remain; were the others drawn, images of no finite value would be.
    images = jnp.asarray(numbered_images(), jnp.float32).at[2:].set(jnp.nan)
    step, start = jax.jit(system.step), system.init(jax.random.key(0))
    for seed in range(8):
        assert np.isfinite(step(start, images, jax.random.key(seed))[1]["loss"])


def with_a_huge_coefficient(state):
    """A state whose next gradient, unless clipped, is not finite."""
    return state.replace(coefficients=jnp.full_like(state.coefficients, 1e20))


def test_a_lifetime_that_diverges_is_recorded_and_clipping_leaves_the_seed_alone() -> None:
    system = make_system(dataclasses.replace(TINY, clip=1.0), CLASSES, SIDE * SIDE)
    state = with_a_huge_coefficient(system.init(jax.random.key(0)))
    after, metrics, arrays = jax.jit(system.step)(state, numbered_images(), jax.random.key(1))
    assert not np.isfinite(arrays["loss"])
    assert not np.isfinite(metrics["loss"])
    np.testing.assert_array_equal(after.coefficients, state.coefficients)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


def test_a_run_with_a_lost_seed_ends_and_resumes_to_the_same_bits(system, tmp_path) -> None:
    config = dataclasses.replace(TINY, chunk=1, checkpoint_every=1, keep=9)
    said = []
    progress = SimpleNamespace(update=lambda *_: None, message=said.append, close=lambda: None)

    def trained(path, resume=False):
        run = Run(path, config, resume=resume)
        second = jax.random.key_data(make_keys(TINY.seed + 1).init)

        def first(key):
            state = system.init(key)
            other = with_a_huge_coefficient(state)
            return other if (jax.random.key_data(key) == second).all() else state

        data = numbered_images()
        return train(system, data, config, run, progress=progress, first_state=first)

    whole = trained(tmp_path / "run")
    assert np.isnan(whole.arrays.values["loss"][1, 1:]).all()
    assert np.isfinite(whole.arrays.values["loss"][0]).all()
    assert [row["lost_seeds"] for row in whole.metrics if row["split"] == "train"] == [1, 1, 1]
    assert [line for line in said if "lost" in line] == [
        "seed 1 is lost: by step 1 an array of its state was not finite. It stays as it was "
        "before; the others go on."
    ]
    for step in (2, 3):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    resumed = trained(tmp_path / "run", resume=True)
    assert sum("is lost" in line for line in said) == 1
    jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)

    rule = learned_rule(config, whole.state, "here")
    np.testing.assert_array_equal(np.float32(rule.coefficients), whole.state.state.coefficients[0])
    write_episodes(tmp_path, config, whole.arrays)
    losses = read_episodes(tmp_path)["loss"]
    assert np.isnan(losses).tolist() == [[False] * 3, [True] * 3]


def test_alignment_against_numpy() -> None:
    sizes, beta = (5, 4, 3), 10.0
    weights, random = (init_weights(jax.random.key(seed), sizes) for seed in (0, 1))
    rule = Rule(find_terms(["pseudo_gradient"]), "fix", beta)
    images = jax.random.uniform(jax.random.key(2), (6, 5))
    labels = jnp.arange(6) % 3
    ours = alignment(rule, weights, random, (images, labels))
    w, b = ([np.asarray(layer, float) for layer in layers] for layers in (weights, random))
    means = {"w": [], "b": []}
    deviations = np.zeros(2)
    for image, label in zip(np.asarray(images, float), np.asarray(labels), strict=True):
        hidden = np.log1p(np.exp(beta * w[0] @ image)) / beta
        output = np.exp(w[1] @ hidden) / np.exp(w[1] @ hidden).sum()
        error = output - np.eye(3)[label]
        for name, back in (("w", w), ("b", b)):
            below = (error @ back[1]) * (1 - np.exp(-beta * hidden))
            means[name].append([(below @ back[0]) * (1 - np.exp(-beta * image)), below, error])
        for layer, (before, after) in enumerate(((image, hidden), (hidden, output))):
            deviations[layer] += np.square(
                w[layer] @ before - (after @ w[layer]) @ w[layer].T
            ).sum()
    for layer in range(3):
        u, v = (np.mean([row[layer] for row in means[name]], 0) for name in ("w", "b"))
        wanted = math.degrees(math.acos(min(1, u @ v / np.linalg.norm(u) / np.linalg.norm(v))))
        np.testing.assert_allclose(ours["angle"][layer], wanted, atol=1e-2)
    np.testing.assert_allclose(ours["orthonormality"], deviations, rtol=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 0.01, 45.0, 90.0, 179.99])
def test_angles_are_exact_at_their_ends(degrees) -> None:
    turn = np.radians(degrees)
    a, b = jnp.array([2.0, 0.0]), 3 * jnp.array([np.cos(turn), np.sin(turn)])
    np.testing.assert_allclose(angle(a, b), degrees, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learn": 7}, r"learn \+ query is 9, but there are only 8 images of a class"),
        (
            {"held_out": 5},
            "classes is 2, but there are only 1 classes in the data to draw from without",
        ),
        ({"held_out": 6}, "held_out is 6, but there are only 5"),
    ],
)
def test_data_that_cannot_serve_are_named(changes, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        check_data(dataclasses.replace(TINY, **changes), numbered_images())


def test_with_replacement_an_episode_may_have_more_classes_than_the_data() -> None:
    check_data(dataclasses.replace(TINY, replacement=True, classes=9), numbered_images())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"start": math.nan}, "start must be a number, but is nan"),
        ({"l1": -1.0}, "l1 must be at least 0, but is -1.0"),
        ({"hidden": (4, 0)}, r"hidden must be widths of at least 1, but is \(4, 0\)"),
        ({"beta": 0.0}, "beta must be positive, but is 0.0"),
        ({"seeds": 0}, "seeds must be at least 1, but is 0"),
        ({"avg_window": 0}, "avg_window must be at least 1, but is 0"),
        ({"rate_shares": (1.0,)}, r"rate_shares are 1, but there are 3 terms \(pseudo_gradient, "),
        ({"rate_shares": (1.0, 0.0, 1.0)}, "rate_shares must be positive"),
    ],
)
def test_impossible_settings_are_named(changes, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(TINY, **changes)
