"""All pairs of synapses against plain loops over which of them fire."""

import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.systems.episodic.analysis import co_activity as c

RANDOM = np.random.default_rng(0)
IMAGES = 40
FIRST = RANDOM.uniform(size=(IMAGES, 21)) < 0.3
SECOND = RANDOM.uniform(size=(IMAGES, 13)) < 0.5
SECOND[:, 0] = FIRST[:, 0]  # always together
SECOND[:, 1] = True
SECOND[:, 2] = ~FIRST[:, 1]  # never together


def information(x, y) -> float:
    """Bouma (2009), of two synapses that fire in images bool [T]; clipped at 0."""
    p = (x & y).mean()
    if p in (0, 1):
        return p
    return max(0.0, np.log(p / (x.mean() * y.mean())) / -np.log(p))


def bins(values) -> np.ndarray:
    places = np.minimum((np.array(values) * c.BINS).astype(int), c.BINS - 1)
    return np.bincount(places, minlength=c.BINS)


def packed(fires):
    return jnp.packbits(jnp.asarray(fires), axis=-1)


def assert_equal_but_at_edges(found, wanted) -> None:
    """A value at a bin's very edge may be counted next door: compare cumulative counts."""
    assert found.sum() == wanted.sum()
    assert np.abs(np.cumsum(found) - np.cumsum(wanted)).max() <= 1


def test_mutual_information_is_a_plain_loop():
    joint = FIRST.T.astype(np.float32) @ SECOND.astype(np.float32)
    found = c.normalised_mutual_information(
        *(jnp.asarray(x, jnp.float32) for x in (joint, FIRST.sum(0), SECOND.sum(0))), IMAGES
    )
    for i in range(FIRST.shape[1]):
        for j in range(SECOND.shape[1]):
            assert found[i, j] == pytest.approx(information(FIRST[:, i], SECOND[:, j]), abs=1e-5)
    assert found[0, 0] == pytest.approx(1)
    assert found[1, 2] == 0


@pytest.mark.parametrize("block", [4, 2048])
def test_pairs_of_two_layers(monkeypatch, block):
    """Of synapses named by index, in several blocks and in one."""
    monkeypatch.setattr(c, "BLOCK", block)
    rows, columns = np.array([0, 1, 3, 9, 20]), np.array([0, 1, 2, 8, 9, 12])
    wanted = bins([information(FIRST[:, i], SECOND[:, j]) for i in rows for j in columns])
    told = []
    found = c.count_pairs(
        (packed(FIRST), rows), (packed(SECOND), columns), report=lambda *done: told.append(done)
    )
    assert_equal_but_at_edges(found, wanted)
    assert told == [(n, len(told)) for n in range(1, len(told) + 1)]
    assert len(told) == (4 if block == 4 else 1)


@pytest.mark.parametrize("block", [4, 2048])
def test_pairs_of_one_layer_count_once(monkeypatch, block):
    monkeypatch.setattr(c, "BLOCK", block)
    chosen = np.array([0, 2, 3, 8, 9, 10, 15, 16, 19, 20])
    pairs = [(i, j) for i in chosen for j in chosen if i < j]
    found = c.count_pairs((packed(FIRST), chosen))
    assert_equal_but_at_edges(
        found, bins([information(FIRST[:, i], FIRST[:, j]) for i, j in pairs])
    )


def test_no_synapse_and_one_have_no_pairs():
    none, one = np.array([], int), np.array([3])
    assert c.count_pairs((packed(FIRST), none)).sum() == 0
    assert c.count_pairs((packed(FIRST), one)).sum() == 0
    assert c.count_pairs((packed(FIRST), one), (packed(SECOND), none)).sum() == 0


def test_often_is_more_than_one_percent_of_the_images():
    assert c.fires_often(np.array([0, 30, 31, 3000]), 3000).tolist() == [2, 3]
