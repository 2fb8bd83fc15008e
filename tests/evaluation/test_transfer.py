"""Transfer: which images are chosen, what is re-drawn, and what a run reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsar_jax.errors import UserError
from tsar_jax.evaluation.transfer import (
    RATES,
    TransferConfig,
    bytes_per_image,
    fresh_output,
    mean_regulation,
    open_share,
    select,
    transfer,
    transfer_once,
)
from tsar_jax.models import TSAR, Ungated, init_params, run_levels
from tsar_jax.plasticity.masks import mask

TINY = TSAR(channels=2, regulator_channels=2, classes=6)
PLAIN = Ungated(channels=2, classes=6)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 28, 28, 1), np.uint8)
CONFIG = TransferConfig(classes=3, learn=2, rates=(1e-3, 1e-2), draws=1, runs=2)


def normalise(images):
    return images.astype(jnp.float32) / 255


def draw_params(network, seed=0):
    return jax.jit(lambda key: init_params(network, key))(jax.random.key(seed))


def test_published_rates():
    assert RATES[0] == 1e-3
    assert RATES[-1] == 1e-4
    assert len(RATES) == 10


@given(seed=st.integers(0, 2**31), classes=st.integers(1, 4), half=st.integers(1, 6))
@settings(max_examples=10, deadline=None)
def test_with_test_the_upper_half_is_learned_and_the_lower_half_scored(seed, classes, half):
    config = TransferConfig(classes=classes, learn=half, test=True)
    chosen = select(jax.random.key(seed), (classes, 2 * half), config, None)
    for learn, score in zip(chosen.learn, chosen.score, strict=True):
        assert sorted(learn.tolist()) == list(range(half, 2 * half))
        assert sorted(score.tolist()) == list(range(half))


def test_without_test_the_learned_images_are_scored():
    config = TransferConfig(classes=3, learn=4, test=False)
    chosen = select(jax.random.key(0), (3, 9), config, None)
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
    chosen = select(jax.random.key(0), (1, 10), config, regulation)
    assert set(chosen.learn[0].tolist()) == wanted
    assert set(chosen.score[0].tolist()) <= set(range(5))


def test_fresh_output_redraws_the_output_layer_and_its_regulation_alone():
    params = draw_params(TINY)
    after = jax.jit(lambda p, k: fresh_output(TINY, p, -1.7, k))(params, jax.random.key(5))
    np.testing.assert_allclose(after["regulator"]["head"]["bias"], -1.7)
    assert (after["regulator"]["head"]["kernel"] != params["regulator"]["head"]["kernel"]).all()
    assert (after["head"]["kernel"] != params["head"]["kernel"]).all()
    for name in ("encoder", "trunk"):
        jax.tree.map(np.testing.assert_array_equal, after[name], params[name])
    for layer in ("block_0", "block_1", "block_2"):
        jax.tree.map(
            np.testing.assert_array_equal, after["regulator"][layer], params["regulator"][layer]
        )


def test_regulation_of_the_third_convolution_image_by_image():
    """In one batch, and in batches of two, of which the last is half empty."""
    params = draw_params(TINY)
    memory = 2 * bytes_per_image(params, (3, 28, 28))
    images = jnp.asarray(IMAGES[:3, :1])
    mean, uneven, share, gates = jax.jit(
        lambda p: (
            mean_regulation(TINY, p, images, normalise),
            mean_regulation(TINY, p, images, normalise, memory=memory),
            open_share(TINY, p, images, normalise, 3e-4),
            run_levels(TINY, p, normalise(images[:, 0]), 0, 2)[1]["block_2"]["kernel"],
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
    params = draw_params(PLAIN)
    config = TransferConfig(classes=4, learn=10)
    found = jax.jit(
        lambda p: transfer_once(
            *(PLAIN, p, mask(p, ("head",)), images, normalise, config, None),
            jax.random.key(1),
            jnp.float32(0.1),
        )
    )(params)
    assert {name: value.shape for name, value in found.items()} == {
        "train": (),
        "test": (),
        "per_class": (4,),
        "right_after": (4,),
    }
    np.testing.assert_array_equal(found["right_after"], 1)  # just learned, so recognised
    assert float(found["train"]) == float(found["test"]) == float(found["per_class"].mean())


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
        ({"condition": "spikes"}, "condition spikes"),
    ],
)
def test_what_cannot_be_transferred_is_named(change, word):
    params = draw_params(PLAIN)
    config = TransferConfig(**{"classes": 3, "learn": 2, **change})
    with pytest.raises(UserError, match=word):
        transfer(PLAIN, params, ("head",), jnp.asarray(IMAGES), normalise, config)


@pytest.mark.parametrize(
    "change", [{"runs": 0}, {"mixed": 31, "condition": "mixed"}, {"rates": ()}, {"rates": (0.0,)}]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(UserError, match=next(iter(change))):
        TransferConfig(**change)
