"""Streams: what they show, when, and that the same key and step always show the same."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from continual_toys import toy_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tsar_jax.data.continual import make_stream, split_name
from tsar_jax.data.continual.digits_360 import make_schedule
from tsar_jax.data.continual.gcil import class_weights, draw_phases
from tsar_jax.data.continual.pixels import (
    crop_and_flip,
    move_pixels,
    permutation_map,
    rotation_map,
)
from tsar_jax.data.continual.registry import StreamSettings
from tsar_jax.data.continual.validation import hold_out
from tsar_jax.errors import UserError


def batches(stream, key, steps=None):
    """Every batch of a stream, as it would be seen in order."""
    data = jax.tree.map(jnp.asarray, stream.data)
    stream_state = stream.init(data, key)

    @jax.jit
    def show(stream_state, step):
        stream_state = stream.shuffle(data, stream_state, key, step)
        return stream_state, stream.batch(data, stream_state, jax.random.fold_in(key, step), step)

    shown = []
    for step in range(stream.steps if steps is None else steps):
        stream_state, batch = show(stream_state, step)
        shown.append(jax.device_get(batch))
    return shown, stream_state, data


@pytest.mark.parametrize("degrees", [0, 17.3, 45, 90, 133.7, 180])
def test_rotation_is_pillows(degrees) -> None:
    images = toy_dataset(shape=(28, 28)).train.images[:4]
    ours = move_pixels(jnp.asarray(images)[..., None], rotation_map(jnp.float32(degrees), 28))
    theirs = np.stack([np.asarray(Image.fromarray(image).rotate(degrees)) for image in images])
    # Where a pixel's place falls on a border both are right; it does for a whole turn of 45.
    assert (np.asarray(ours)[..., 0] == theirs).mean() > 0.99


def test_a_permutation_loses_no_pixel() -> None:
    images = toy_dataset().train.images[..., None]
    moved = move_pixels(jnp.asarray(images), permutation_map(jax.random.key(0), 36))
    assert not np.array_equal(moved, images)
    assert np.array_equal(
        np.sort(np.asarray(moved).reshape(60, -1)), np.sort(images.reshape(60, -1))
    )


def test_crops_are_of_the_padded_image() -> None:
    images = toy_dataset(shape=(8, 8, 3)).train.images
    cropped = np.asarray(crop_and_flip(jnp.asarray(images), jax.random.key(0), padding=2))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = set()
    for image, whole in zip(cropped, padded, strict=True):
        places = [
            (row, column, flip)
            for row in range(5)
            for column in range(5)
            for flip in (1, -1)
            if np.array_equal(image, whole[row : row + 8, column : column + 8][:, ::flip])
        ]
        assert places
        found.add(places[0])
    assert len(found) > 15


def test_an_epoch_shows_every_image_once() -> None:
    dataset = toy_dataset()
    stream = make_stream("perm-toy", dataset, StreamSettings(batch=16, epochs=2, tasks=2))
    assert stream.steps == 2 * 2 * 4
    assert stream.ends.tolist() == [8, 16]
    shown, stream_state, _ = batches(stream, jax.random.key(1))
    orders = []
    for epoch in range(4):
        of_epoch = shown[4 * epoch : 4 * epoch + 4]
        assert [int(batch.mask.sum()) for batch in of_epoch] == [16, 16, 16, 12]
        pixels = np.concatenate([b.images[b.mask > 0] for b in of_epoch]).reshape(60, -1)
        back = np.empty_like(pixels)
        back[:, np.asarray(stream_state.maps)[epoch // 2]] = pixels
        original = dataset.train.images.reshape(60, -1)
        orders.append([int(np.flatnonzero((original == row).all(1))[0]) for row in back])
        assert sorted(orders[-1]) == list(range(60))
        labels = np.concatenate([b.labels[b.mask > 0] for b in of_epoch])
        assert np.array_equal(labels, dataset.train.labels[orders[-1]])
    assert len({tuple(order) for order in orders}) == 4


def test_class_tasks_have_their_classes_and_drop_what_does_not_fill_a_batch() -> None:
    dataset = toy_dataset(shape=(8, 8, 3))
    stream = make_stream("seq-toy", dataset, StreamSettings(batch=8, tasks=2))
    assert stream.steps == 6
    assert stream.kind == "class"
    shown, stream_state, data = batches(stream, jax.random.key(0))
    for step, batch in enumerate(shown):
        assert set(batch.labels.tolist()) <= {2 * (step // 3), 2 * (step // 3) + 1}
    assert all(batch.mask.all() for batch in shown)
    assert stream.task_classes.tolist() == [[True, True, False, False], [False, False, True, True]]
    tested = stream.test(data, stream_state, 1, jnp.arange(stream.test_size))
    assert set(np.asarray(tested.labels)[np.asarray(tested.mask) > 0].tolist()) == {2, 3}
    whole = stream.task_images(data, stream_state, 1)
    assert int(whole.mask.sum()) == (dataset.train.labels >= 2).sum()


def test_a_stream_is_a_function_of_key_and_step() -> None:
    stream = make_stream("rot-toy", toy_dataset(), StreamSettings(batch=16, tasks=2))
    first, *_ = batches(stream, jax.random.key(3))
    again, *_ = batches(stream, jax.random.key(3))
    other, *_ = batches(stream, jax.random.key(4))
    assert all(np.array_equal(a.images, b.images) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].images, other[0].images)


def test_joint_mixes_all_tasks() -> None:
    stream = make_stream("rot-toy", toy_dataset(), StreamSettings(batch=60, tasks=3, joint=True))
    assert (stream.tasks, len(stream.task_classes), stream.steps) == (1, 3, 3)
    shown, *_ = batches(stream, jax.random.key(0))
    assert sum(int(batch.mask.sum()) for batch in shown) == 180


def test_gcil_numbers_classes_as_they_appear_and_tests_on_those_seen() -> None:
    dataset = toy_dataset(train=600, test=40, classes=8, shape=(8, 8, 3))
    stream = make_stream("gcil-toy", dataset, StreamSettings(batch=4, tasks=5, phase_size=40))
    shown, stream_state, data = batches(stream, jax.random.key(0))
    seen = 0
    for task in range(5):
        of_task = shown[stream.begins[task] : stream.ends[task]]
        labels = {label for batch in of_task for label in batch.labels.tolist()}
        seen = max(seen, 1 + max(labels))
        assert stream.task_classes[task].tolist() == [label < seen for label in range(8)]
        tested = stream.test(data, stream_state, task, jnp.arange(stream.test_size))
        assert int(tested.mask.sum()) == 5 * seen
    assert seen > 1


OPTIONS = {
    "noise": {"seed": 1993, "noise": True},
    "noise_upper": {"seed": 7, "noise": True, "max_classes": 12},
    "pretrain": {"seed": 1993, "max_classes": 30, "pretrain": 10},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_gcil_with_options_draws_what_the_release_draws(name) -> None:
    """Recorded from the release's sampler: six phases over the labels of CIFAR-100's size."""
    recorded = np.load(Path(__file__).parent / "gcil_options.npz")
    labels = np.repeat(np.arange(100), 500)
    np.random.RandomState(0).shuffle(labels)
    weights = class_weights(100, longtail=name == "pretrain")
    schedule = draw_phases(labels, weights, phases=6, **OPTIONS[name])
    for number, phase in enumerate(schedule):
        head = f"{name}__phase{number}__"
        assert np.array_equal(phase.classes, recorded[head + "classes"])
        assert np.array_equal(phase.sizes, recorded[head + "sizes"])
        assert np.array_equal(phase.indices[:10], recorded[head + "first_indices"])
    if name == "pretrain":
        assert schedule[0].sizes.tolist() == [500] * 10


def test_gcil_streams_take_their_options() -> None:
    dataset = toy_dataset(train=600, test=40, classes=8, shape=(8, 8, 3))

    def classes_of(name="gcil-toy", **options):
        settings = StreamSettings(batch=4, tasks=5, phase_size=40, **options)
        stream = make_stream(name, dataset, settings)
        labels = stream.data["labels"]
        rows = zip(stream.data["members"], stream.data["sizes"], strict=True)
        return [sorted(labels[row[:size] % 600].tolist()) for row, size in rows]

    plain = classes_of()
    assert max(len(set(phase)) for phase in plain) > 3
    few = classes_of(phase_classes=3)
    assert 1 < max(len(set(phase)) for phase in few) <= 3
    assert classes_of(schedule_seed=1993) == plain
    assert classes_of(schedule_seed=0) != plain
    assert classes_of("gcil-toy-noise") not in (plain, classes_of("gcil-toy-longtail"))
    assert classes_of(pretrain_classes=2)[0] == [0] * 75 + [1] * 75


def test_gcil_of_cifar100_is_normalised_as_cifar10() -> None:
    dataset = toy_dataset(train=600, classes=8, shape=(8, 8, 3), name="cifar100")
    images = jnp.asarray(dataset.test.images[:2])
    gcil, own = (
        make_stream(f"{kind}-cifar100", dataset, StreamSettings(batch=4, tasks=2, **options))
        for kind, options in (("gcil", {"phase_size": 40}), ("seq", {}))
    )
    statistics = [
        (gcil, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2615)),
        (own, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    ]
    for stream, mean, std in statistics:
        wanted = (np.asarray(images) / 255 - mean) / std
        np.testing.assert_allclose(stream.normalise(images), wanted, rtol=1e-4, atol=1e-5)


def test_validation_tests_on_a_tenth_of_the_training_images() -> None:
    dataset = toy_dataset(train=200, test=20)
    cut = hold_out(dataset)
    assert (len(cut.train.labels), len(cut.test.labels)) == (180, 20)
    together = np.concatenate([cut.train.images, cut.test.images]).reshape(200, -1)
    whole = dataset.train.images.reshape(200, -1)
    assert np.array_equal(np.unique(together, axis=0), np.unique(whole, axis=0))
    assert not np.array_equal(cut.test.images, dataset.train.images[:20])
    for part in (cut.train, cut.test):
        for image, label in zip(part.images[:5], part.labels[:5], strict=True):
            row = np.flatnonzero((whole == image.reshape(-1)).all(1))
            assert dataset.train.labels[row].tolist() == [label]
    assert np.array_equal(hold_out(dataset).test.images, cut.test.images)
    assert "tested on 20 of its training images" in cut.source
    with pytest.raises(UserError, match="has none to be tested on: leave out validation"):
        hold_out(toy_dataset(train=20))


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(36, 90), min_size=9, max_size=9), batch=st.integers(1, 16))
def test_a_schedule_of_turning_digits(sizes, batch) -> None:
    """Pairs in order; chunks never exceeded; the pair ends when one chunk is used up."""
    schedule = make_schedule(np.array(sizes), batch)
    drawn = np.zeros(9, int)
    begins = np.flatnonzero(np.r_[True, (np.diff(schedule.digits, axis=0) != 0).any(1)])
    pairs = schedule.digits[begins].tolist()
    expected = [[d, (d + 1) % 9] for _ in range(3) for d in range(9)]
    assert pairs == expected
    for start, stop in zip(begins, [*begins[1:], len(schedule.digits)], strict=True):
        total = schedule.counts[start:stop].sum(0)
        assert (total <= schedule.size[start]).all()
        assert (total == schedule.size[start]).any()
        assert (schedule.counts[start:stop].sum(1) <= batch).all()
    for digits, counts, before in zip(
        schedule.digits, schedule.counts, schedule.drawn, strict=True
    ):
        assert (drawn[digits] == before).all()
        drawn[digits] += counts
    assert (schedule.first + schedule.size <= np.array(sizes)[schedule.digits]).all()


def test_turning_digits_show_their_digits_turned() -> None:
    dataset = toy_dataset(train=360, test=90, classes=9, shape=(10, 10), name="mnist")
    stream = make_stream("mnist-360", dataset, StreamSettings(batch=8))
    shown, stream_state, data = batches(stream, jax.random.key(0), steps=6)
    by_digit = {d: dataset.train.images[dataset.train.labels == d] for d in range(9)}
    drawn = {0: 0, 1: 0}
    for batch in shown[:1]:
        for image, label, there in zip(batch.images, batch.labels, batch.mask, strict=True):
            if there:
                degrees = (label - 1) * 60 + 9 * drawn[int(label)]
                drawn[int(label)] += 1
                chunk = by_digit[int(label)][:7]
                turned = [np.asarray(Image.fromarray(one).rotate(degrees)) for one in chunk]
                close = [(image[..., 0] == one).mean() for one in turned]
                assert max(close) > 0.95
    tested = stream.test(data, stream_state, 0, jnp.arange(stream.test_size))
    assert stream.test_size == 90
    assert tested.mask.all()


def test_joint_training_sees_as_many_turned_digits_in_mixed_order() -> None:
    dataset = toy_dataset(train=360, test=90, classes=9, shape=(10, 10), name="mnist")
    apart = make_stream("mnist-360", dataset, StreamSettings(batch=8))
    stream = make_stream("mnist-360", dataset, StreamSettings(batch=8, joint=True))
    shown, *_ = batches(stream, jax.random.key(0))
    labels = np.concatenate([batch.labels[batch.mask > 0] for batch in shown])
    expected = np.zeros(9, int)
    np.add.at(expected, apart.data["digits"], apart.data["counts"])
    assert np.bincount(labels, minlength=9).tolist() == expected.tolist()
    assert len(set(labels[:30].tolist())) > 5


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("rot-mnist", ("rot", "mnist")),
        ("mnist-360", ("360", "mnist")),
        ("rot-emnist", ("rot", "emnist_digits")),
        ("seq-tinyimg", ("seq", "tiny_imagenet")),
        ("gcil-mini-imagenet-longtail", ("gcil-longtail", "mini_imagenet")),
        ("gcil-cifar100-noise", ("gcil-noise", "cifar100")),
    ],
)
def test_names(name, parts) -> None:
    assert split_name(name) == parts


def test_what_cannot_be_is_refused() -> None:
    grey, colour = toy_dataset(), toy_dataset(shape=(8, 8, 3))
    with pytest.raises(UserError, match="no stream 'turn-mnist'"):
        split_name("turn-mnist")
    with pytest.raises(UserError, match="in colour"):
        make_stream("rot-toy", colour, StreamSettings(batch=8))
    with pytest.raises(UserError, match="fewer than a batch of 64"):
        make_stream("seq-toy", colour, StreamSettings(batch=64, tasks=2))
    with pytest.raises(UserError, match="does not divide the 4 classes"):
        make_stream("seq-toy", grey, StreamSettings(batch=8, tasks=3))
    with pytest.raises(UserError, match="no task boundaries"):
        make_stream("mnist-360", grey, StreamSettings(batch=8, tasks=3))
    with pytest.raises(UserError, match="wants 36 training images"):
        make_stream("mnist-360", toy_dataset(classes=9), StreamSettings(batch=8))
    with pytest.raises(UserError, match="rot-toy has no schedule_seed: only gcil- streams do"):
        make_stream("rot-toy", grey, StreamSettings(batch=8, schedule_seed=0))
    with pytest.raises(UserError, match="there are only 4 classes of toy"):
        make_stream("gcil-toy", colour, StreamSettings(batch=8, pretrain_classes=5))
    with pytest.raises(UserError, match="phase_size is 3, but a phase can have 4 classes"):
        make_stream("gcil-toy", colour, StreamSettings(batch=8, phase_size=3))
    with pytest.raises(UserError, match=r"no 40 images were of all \d+ classes of a phase"):
        draw_phases(np.repeat(np.arange(40), 99), class_weights(40, False), size=40, max_classes=40)
    with pytest.raises(UserError, match="all 60 are used up"):
        make_stream("gcil-toy", colour, StreamSettings(batch=8, phase_size=30))
    train = dataclasses.replace(grey.train, names=(*grey.train.names, "none"))
    with pytest.raises(UserError, match="Class 'none' of toy has no training image"):
        make_stream("rot-toy", dataclasses.replace(grey, train=train), StreamSettings(batch=8))
