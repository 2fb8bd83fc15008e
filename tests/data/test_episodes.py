"""Episodes and streams: the right images, in the right order, fairly drawn, with no leak."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tsar_jax.data.episodes import (
    draw_episode,
    draw_stream,
    draw_without_replacement,
    omniglot_scaling,
    scale_omniglot,
)

CLASSES, PER_CLASS = 9, 6
# The pixels of an image tell its class and its number within the class.
CODES = np.stack(np.meshgrid(np.arange(CLASSES), np.arange(PER_CLASS), indexing="ij"), -1)
IMAGES = np.tile(CODES[:, :, None, :], (1, 1, 3, 1)).astype(np.uint8)  # [classes, each, 3, 2]
seeds = st.integers(0, 2**32 - 1)


@functools.cache
def episodes(tasks, updates, remember, classes=CLASSES):
    return jax.jit(
        lambda seed: draw_episode(
            jax.random.key(seed),
            jnp.asarray(IMAGES)[:classes],
            tasks=tasks,
            updates=updates,
            random_query=remember,
        )
    )


def decode(images):
    """(class, instance) of every image."""
    images = np.asarray(images)
    assert (images == images[:, :1]).all()
    return images[:, 0].astype(int)


@pytest.mark.parametrize(("tasks", "updates", "remember"), [(1, 6, 8), (3, 12, 5), (9, 9, 0)])
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_episode(tasks, updates, remember, seed):
    episode = episodes(tasks, updates, remember)(np.uint32(seed))
    shown = decode(episode.images)
    trajectory = shown[np.asarray(episode.trajectory)]
    each = updates // tasks
    assert episode.images.dtype == np.uint8
    assert trajectory.shape == (updates, 2)
    assert shown.shape == (remember + updates, 2)
    assert episode.query is None
    np.testing.assert_array_equal(shown[:, 0], episode.labels)
    reset = np.asarray(episode.reset_classes)
    assert len(set(reset)) == tasks
    np.testing.assert_array_equal(trajectory[:, 0], np.repeat(reset, each))
    assert len({tuple(row) for row in trajectory}) == updates
    assert len(set(np.asarray(episode.trajectory))) == updates


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_classes_that_are_sliced_away_never_appear(seed):
    episode = episodes(2, 6, 20, classes=4)(np.uint32(seed))
    assert max(episode.labels.max(), episode.reset_classes.max()) < 4


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_same_key_same_episode(seed):
    first, second = episodes(3, 12, 5)(np.uint32(seed)), episodes(3, 12, 5)(np.uint32(seed))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    other = episodes(3, 12, 5)(np.uint32(seed ^ 1))
    assert (np.asarray(first.images) != np.asarray(other.images)).any()


def test_classes_images_and_orders_are_uniform():
    """Chi-square over fixed draws; each threshold fails by chance once in ten thousand."""
    keys = jax.random.split(jax.random.key(0), 3000)
    draw = functools.partial(draw_episode, tasks=3, updates=6, random_query=4)
    drawn = jax.jit(jax.vmap(lambda k: draw(k, jnp.asarray(IMAGES))))(keys)
    for position in range(3):
        counts = np.bincount(drawn.reset_classes[:, position], minlength=CLASSES)
        assert stats.chisquare(counts).pvalue > 1e-4
    shown = np.asarray(drawn.images)[:, :, 0].astype(int)
    trajectory = shown[:, :6]
    np.testing.assert_array_equal(drawn.trajectory, np.tile(np.arange(6), (3000, 1)))
    for position in (0, 1):
        counts = np.bincount(trajectory[:, position, 1], minlength=PER_CLASS)
        assert stats.chisquare(counts).pvalue > 1e-4
    remembered = (shown[:, 6:, 0] * PER_CLASS + shown[:, 6:, 1]).reshape(-1)
    counts = np.bincount(remembered, minlength=CLASSES * PER_CLASS)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_draws_without_replacement_are_uniform_and_ordered_at_random():
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda k: draw_without_replacement(k, 13, 5)))(keys))
    assert all(len(set(row)) == 5 for row in drawn)
    assert drawn.min() >= 0
    for position in range(5):
        counts = np.bincount(drawn[:, position], minlength=13)
        assert stats.chisquare(counts).pvalue > 1e-4
    assert abs((drawn[:, 0] < drawn[:, 1]).mean() - 0.5) < 0.04


@functools.cache
def streams(iid, epochs, classes=4, class_order="random"):
    return jax.jit(
        lambda seed: draw_stream(
            jax.random.key(seed),
            population=7,
            classes=classes,
            learn=3,
            per_class=5,
            class_order=class_order,
            iid=iid,
            epochs=epochs,
        )
    )


def rows(index):
    return [tuple(row) for row in np.asarray(index)]


@pytest.mark.parametrize(("iid", "epochs"), [(False, 1), (False, 3), (True, 1), (True, 3)])
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_stream(iid, epochs, seed):
    stream = streams(iid, epochs)(np.uint32(seed))
    learned = np.asarray(stream.learn_index).reshape(epochs, 12, 2)
    labels = np.asarray(stream.learn_labels).reshape(epochs, 12)
    test, test_labels = np.asarray(stream.test_index), np.asarray(stream.test_labels)
    chosen = test[::2, 0]
    assert len(set(chosen)) == 4
    assert chosen.max() < 7
    assert rows(test) == [(c, image) for c in chosen for image in (3, 4)]
    np.testing.assert_array_equal(test[:, 0], chosen[test_labels])
    in_order = [(c, image) for c in chosen for image in range(3)]
    for epoch, epoch_labels in zip(learned, labels, strict=True):
        np.testing.assert_array_equal(epoch[:, 0], chosen[epoch_labels])
        assert sorted(rows(epoch)) == sorted(in_order)
        if not iid:
            assert rows(epoch) == in_order
    assert not {*rows(stream.learn_index)} & {*rows(test)}


def test_shuffled_stream_differs_from_epoch_to_epoch_and_is_shuffled():
    epochs = np.asarray(streams(True, 3)(np.uint32(5)).learn_labels).reshape(3, 12)
    assert (epochs[0] != epochs[1]).any()
    assert any((epoch != np.sort(epoch)).any() for epoch in epochs)


def test_shuffling_does_not_change_which_classes_are_drawn():
    plain, shuffled = streams(False, 1)(np.uint32(8)), streams(True, 1)(np.uint32(8))
    np.testing.assert_array_equal(plain.test_index, shuffled.test_index)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_classes_can_be_learned_in_the_order_of_the_data(seed):
    drawn, sorted_ = (streams(False, 2, class_order=o)(np.uint32(seed)) for o in ("random", "data"))
    chosen = np.sort(np.asarray(drawn.test_index)[::2, 0])
    np.testing.assert_array_equal(np.asarray(sorted_.test_index)[:, 0], np.repeat(chosen, 2))
    learned = np.tile(np.repeat(chosen, 3), 2)
    np.testing.assert_array_equal(np.asarray(sorted_.learn_index)[:, 0], learned)
    np.testing.assert_array_equal(sorted_.learn_labels, np.tile(np.repeat(np.arange(4), 3), 2))
    shuffled = streams(True, 2, class_order="data")(np.uint32(seed))
    assert (np.diff(np.asarray(shuffled.learn_labels)) < 0).sum() > 1


def test_stream_classes_are_uniform():
    draw = jax.jit(jax.vmap(lambda seed: streams(False, 1)(seed).test_index[::2, 0]))
    chosen = np.asarray(draw(np.arange(3000, dtype=np.uint32)))
    for position in range(4):
        counts = np.bincount(chosen[:, position], minlength=7)
        assert stats.chisquare(counts).pvalue > 1e-4


VALUES = np.array([[[0, 255], [128, 236]]], np.uint8)


@pytest.mark.parametrize(
    ("pixels", "wanted"),
    [
        ("byte-normalised", (VALUES - 236.04736) / 5522.06336),
        ("unit-normalised", (VALUES / 255 - 236.04736) / 5522.06336),
        ("unit", VALUES / 255),
    ],
)
def test_pixels_are_scaled_as_each_release_does(pixels, wanted):
    result = np.asarray(scale_omniglot(jnp.asarray(VALUES), pixels))
    assert result.shape == (1, 2, 2, 1)
    assert result.dtype == np.float32
    # Beside a mean of 236, pixels of 0..1 keep but five digits, in the release too.
    np.testing.assert_allclose(result[..., 0], wanted, rtol=1e-6, atol=1e-8)
    assert omniglot_scaling(pixels) is omniglot_scaling(pixels)
    np.testing.assert_array_equal(omniglot_scaling(pixels)(jnp.asarray(VALUES)), result)
