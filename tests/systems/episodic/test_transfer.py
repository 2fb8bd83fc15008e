"""Transfer: which images are chosen, what is re-drawn, and what a run reports."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsar_jax.errors import UserError
from tsar_jax.networks import (
    TSAR,
    Ungated,
    init_params,
    run_stages,
)
from tsar_jax.plasticity.masks import leaf_names, mask
from tsar_jax.systems.episodic import transfer as transfer_module
from tsar_jax.systems.episodic.image_regulation import bytes_per_image, mean_regulation, open_share
from tsar_jax.systems.episodic.meta_test_lifetime import adam_learner
from tsar_jax.systems.episodic.transfer import (
    RATES,
    TransferConfig,
    check_target,
    initial_params,
    learn_shuffled,
    reinitialise_output,
    run_transfer_lifetime,
    select_images,
    transfer,
)

TINY = TSAR(channels=2, regulator_channels=2, classes=6)
PLAIN = Ungated(channels=2, classes=6)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 28, 28, 1), np.uint8)
CONFIG = TransferConfig(classes=3, learn=2, rates=(1e-3, 1e-2), draws=1, runs=2, test=True)


pytestmark = pytest.mark.usefixtures("quickly_compiled")


def normalise(images):
    return images.astype(jnp.float32) / 255


def draw_params(network, seed=0):
    return jax.jit(lambda key: init_params(network, key))(jax.random.key(seed))


def test_defaults_are_published():
    """One trial of ten rates, each on a fresh draw; 49 runs; the learned images scored."""
    assert RATES == (1e-3, 9e-4, 8e-4, 7e-4, 6e-4, 5e-4, 4e-4, 3e-4, 2e-4, 1e-4)
    published = TransferConfig(
        classes=100,
        learn=30,
        test=False,
        score=None,
        iid=False,
        reset=False,
        condition="random",
        mixed=15,
        head_bias=-1.7,
        rates=RATES,
        draws=1,
        fresh_draws=True,
        runs=49,
    )
    assert TransferConfig() == published


@given(seed=st.integers(0, 2**31), classes=st.integers(1, 4), half=st.integers(1, 6))
@settings(max_examples=10, deadline=None)
def test_with_test_the_upper_half_is_learned_and_the_lower_half_scored(seed, classes, half):
    config = TransferConfig(classes=classes, learn=half, test=True)
    chosen = select_images(jax.random.key(seed), (classes, 2 * half), config, None)
    for learn, score in zip(chosen.learn, chosen.score, strict=True):
        assert sorted(learn.tolist()) == list(range(half, 2 * half))
        assert sorted(score.tolist()) == list(range(half))


@pytest.mark.parametrize(
    ("per_class", "learn", "score", "learnable", "scorable"),
    [
        (20, 15, 5, range(15), range(15, 20)),  # Omniglot: more than half to learn
        (20, 4, 12, range(8), range(8, 20)),  # more than half to score
        (20, 4, 3, range(10, 20), range(10)),  # halves
        (7, 4, 3, range(3, 7), range(3)),  # the larger half to learn
    ],
)
def test_images_to_score_may_be_fewer_or_more_than_those_to_learn(
    per_class, learn, score, learnable, scorable
):
    config = TransferConfig(classes=3, learn=learn, test=True, score=score)
    check_target(config, (3, per_class), 3)
    chosen = select_images(jax.random.key(0), (3, per_class), config, None)
    assert chosen.learn.shape == (3, learn)
    assert chosen.score.shape == (3, score)
    for learned, scored in zip(chosen.learn.tolist(), chosen.score.tolist(), strict=True):
        assert len(set(learned)) == learn
        assert len(set(scored)) == score
        assert set(learned) <= set(learnable)
        assert set(scored) <= set(scorable)


def test_the_first_images_are_ranked_where_they_are_learned():
    """Where the last images are scored, their regulation, the highest, does not count."""
    regulation = jnp.array([[1, 5, 2, 4, 3, 9, 9]], jnp.float32)
    config = TransferConfig(classes=1, learn=2, test=True, score=4, condition="spikes")
    chosen = select_images(jax.random.key(0), (1, 7), config, regulation)
    assert set(chosen.learn[0].tolist()) == {1, 2}
    assert set(chosen.score[0].tolist()) == {3, 4, 5, 6}


def test_without_test_the_learned_images_are_scored():
    config = TransferConfig(classes=3, learn=4, test=False)
    chosen = select_images(jax.random.key(0), (3, 9), config, None)
    np.testing.assert_array_equal(chosen.learn, chosen.score)
    assert all(len(set(row.tolist())) == 4 for row in chosen.learn)
    assert len({tuple(row.tolist()) for row in chosen.learn}) == 3


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [("spikes", {5, 7, 6}), ("nonspikes", {8, 9, 6}), ("mixed", {5, 8, 9})],
)
def test_conditions_choose_by_regulation_within_the_half_that_is_learned(condition, wanted):
    # Images 0 to 4 are scored, however high or low their regulation.
    regulation = jnp.array([[9, 9, 9, -9, -9, 8, 5, 7, 1, 2]], jnp.float32)
    config = TransferConfig(classes=1, learn=3, test=True, condition=condition, mixed=1)
    chosen = select_images(jax.random.key(0), (1, 10), config, regulation)
    assert set(chosen.learn[0].tolist()) == wanted
    assert set(chosen.score[0].tolist()) <= set(range(5))


def test_reinitialising_the_output_redraws_the_output_layer_and_its_regulation_alone():
    params = draw_params(TINY)
    after = jax.jit(lambda p, k: reinitialise_output(TINY, p, -1.7, k))(params, jax.random.key(5))
    np.testing.assert_allclose(after["regulator"]["head"]["bias"], -1.7)
    assert (after["regulator"]["head"]["kernel"] != params["regulator"]["head"]["kernel"]).all()
    assert (after["head"]["kernel"] != params["head"]["kernel"]).all()
    for name in ("encoder", "trunk"):
        jax.tree.map(np.testing.assert_array_equal, after[name], params[name])
    for layer in ("block_0", "block_1", "block_2"):
        jax.tree.map(
            np.testing.assert_array_equal, after["regulator"][layer], params["regulator"][layer]
        )


@pytest.mark.parametrize("reset", [False, True])
def test_reset_draws_all_that_learns_anew_and_nothing_else(reset):
    params = draw_params(TINY)
    names = ("regulator/block_2", "regulator/head", "trunk/block_0/kernel", "head")
    config = dataclasses.replace(CONFIG, reset=reset)
    after = jax.jit(
        lambda p, k: initial_params(TINY, p, mask(p, names), config, k),
    )(params, jax.random.key(5))
    redrawn = {name: changed(after, params, name) for name in leaf_names(params)}
    kernels = {"head/kernel", "regulator/head/kernel"}
    if reset:
        kernels |= {"regulator/block_2/kernel", "trunk/block_0/kernel"}
    assert {name for name, there in redrawn.items() if there} == kernels | {"regulator/head/bias"}
    np.testing.assert_allclose(after["regulator"]["head"]["bias"], -1.7)
    np.testing.assert_allclose(after["regulator"]["block_2"]["bias"], TINY.initial_bias)


def changed(after, before, name) -> bool:
    for part in name.split("/"):
        after, before = after[part], before[part]
    return bool((np.asarray(after) != np.asarray(before)).all())


def test_shuffled_images_are_learned_in_their_order_and_classes_scored_after_their_last():
    stream = np.array([3, 0, 5, 4, 1, 2])  # images 0, 1 of class 0; 2, 3 of class 1; 4, 5 of 2

    def learn(learned, image):
        seen, count = learned
        return seen.at[count].set(image), count + 1

    (seen, count), right_after = jax.jit(
        lambda stream: learn_shuffled(
            (jnp.zeros(6, jnp.int32), 0), learn, lambda learned, position: learned[1], stream, 2
        )
    )(stream)
    np.testing.assert_array_equal(seen, stream)
    assert int(count) == 6
    np.testing.assert_array_equal(right_after, [5, 6, 4])


@pytest.mark.parametrize("iid", [False, True])
def test_a_run_learns_class_after_class_or_all_shuffled(monkeypatch, iid):
    """The learner counts its updates and notes the label of each; it learns nothing."""

    def note(network, plastic, rate):
        learner = adam_learner(network, plastic, rate)

        def init(theta, key):
            first = learner.init(theta, key)
            return first._replace(opt_state=(jnp.full(12, -1), jnp.int32(0)))

        def update(theta, state, example, key):
            labels, count = state.opt_state
            noting = labels.at[count].set(example[1]), count + 1
            jax.debug.callback(lambda *state: noted.append(jax.device_get(state)), *noting)
            return state._replace(opt_state=noting), 0.0

        return learner._replace(init=init, update=update)

    noted = []
    monkeypatch.setattr(transfer_module, "adam_learner", note)
    config = TransferConfig(classes=4, learn=3, iid=iid)
    params = draw_params(PLAIN)
    jax.block_until_ready(
        jax.jit(
            lambda p: run_transfer_lifetime(
                *(PLAIN, p, mask(p, ("head",)), jnp.asarray(IMAGES), normalise, config, None),
                jax.random.key(1),
                jnp.float32(0.1),
            )
        )(params)
    )
    jax.effects_barrier()
    wanted = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    labels = max(noted, key=lambda state: state[1])[0].tolist()
    assert sorted(labels) == wanted
    assert (labels != wanted) == iid


def test_shuffled_images_are_those_of_their_classes():
    """Each class is one image shown again and again, as below, but shuffled."""
    images = jnp.asarray(np.repeat(IMAGES[:, :1], 20, 1))
    found = run_plain(images, TransferConfig(classes=4, learn=10, iid=True))
    np.testing.assert_array_equal(found["per_class"], 1)
    np.testing.assert_array_equal(found["right_after"], 1)


def test_regulation_of_the_third_convolution_image_by_image():
    """In one batch, and in batches of two, of which the last is half empty."""
    params = draw_params(TINY)
    memory = 2 * bytes_per_image(params, (3, 28, 28))
    images = jnp.asarray(IMAGES[:3, :1])
    mean, uneven, share, gates = jax.jit(
        lambda p: (
            mean_regulation(TINY, p, images, normalise),
            mean_regulation(TINY, p, images, normalise, memory_budget=memory),
            open_share(TINY, p, images, normalise, 3e-4),
            run_stages(TINY, p, normalise(images[:, 0]), 0, 2)[1]["block_2"]["kernel"],
        )
    )(params)
    assert mean.shape == (3, 1)
    np.testing.assert_allclose(mean[:, 0], gates.mean((1, 2, 3, 4)), rtol=1e-4)
    np.testing.assert_allclose(uneven, mean, rtol=1e-4)
    wanted = (gates > 3e-4).mean((1, 2, 3, 4))
    assert ((wanted > 0) & (wanted < 1)).all()
    np.testing.assert_allclose(share[:, 0], wanted, rtol=1e-4)


def test_a_run_remembers_separable_classes_and_reports_each():
    """Each class is one image shown again and again; the head alone learns."""
    images = jnp.asarray(np.repeat(IMAGES[:, :1], 20, 1))
    found = run_plain(images, TransferConfig(classes=4, learn=10, test=True))
    assert {name: value.shape for name, value in found.items()} == {
        "train": (),
        "test": (),
        "per_class": (4,),
        "right_after": (4,),
    }
    np.testing.assert_array_equal(found["right_after"], 1)  # just learned, so recognised
    assert float(found["train"]) == float(found["test"]) == float(found["per_class"].mean())


def run_plain(images, config):
    """A transfer of the unregulated network, whose head alone learns."""
    return jax.jit(
        lambda p: run_transfer_lifetime(
            *(PLAIN, p, mask(p, ("head",)), images, normalise, config, None),
            jax.random.key(1),
            jnp.float32(0.1),
        )
    )(draw_params(PLAIN))


def test_nothing_need_be_frozen():
    """Every parameter that has a gradient moves: the learner gets images, not activations."""
    params = draw_params(TINY)

    def learn(p):
        learner = adam_learner(TINY, mask(p, ("all",)), 1e-2)
        example = normalise(jnp.asarray(IMAGES[0, 0])), jnp.int32(1)
        return learner.update(p, learner.init(p, None), example, None)[0].params

    moved = jax.jit(learn)(params)
    still = {name for name in leaf_names(params) if not changed(moved, params, name)}
    assert not [name for name in still if name.startswith("encoder") and name.endswith("kernel")]


@pytest.mark.parametrize("fresh", [False, True])
def test_transfer_searches_with_its_own_settings(monkeypatch, fresh):
    def note(run, key, **settings):
        noted.update(settings)
        values = {"train": np.zeros(7), "test": np.zeros(7), "per_class": np.zeros((7, 3))}
        return 1e-2, {**values, "right_after": np.zeros((7, 3))}

    noted = {}
    monkeypatch.setattr(transfer_module, "search_and_run", note)
    config = dataclasses.replace(CONFIG, draws=4, runs=7, fresh_draws=fresh)
    transfer(PLAIN, draw_params(PLAIN), ("head",), jnp.asarray(IMAGES), normalise, config)
    assert noted == {"learning_rates": (1e-3, 1e-2), "draws": 4, "runs": 7, "fresh_draws": fresh}


@pytest.mark.slow
def test_transfer_searches_a_rate_and_reports_every_run():
    params = draw_params(TINY)
    names = ("regulator", "trunk", "head")
    result, right_after = transfer(TINY, params, names, jnp.asarray(IMAGES), normalise, CONFIG)
    assert result.classes == 3
    assert result.rate in CONFIG.rates
    assert len(result.test) == len(result.train) == len(result.per_class) == 2
    assert right_after.shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"classes": 5}, "classes in the data"),
        ({"learn": 4}, "images of a class"),
        ({"learn": 4, "score": 3}, "learn is 4.*only 3"),
        ({"condition": "spikes"}, "condition spikes"),
    ],
)
def test_what_cannot_be_transferred_is_named(change, word):
    params = draw_params(PLAIN)
    config = TransferConfig(**{"classes": 3, "learn": 2, "test": True, **change})
    with pytest.raises(UserError, match=word):
        transfer(PLAIN, params, ("head",), jnp.asarray(IMAGES), normalise, config)


@pytest.mark.parametrize(
    "change",
    [
        {"runs": 0},
        {"mixed": 31, "condition": "mixed"},
        {"rates": ()},
        {"rates": (0.0,)},
        {"score": 0, "test": True},
        {"score": 5},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(UserError, match=next(iter(change))):
        TransferConfig(**change)
