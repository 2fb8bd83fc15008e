"""The measures of a representation, against brute force and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from tsar_jax.data.episodes import scale_omniglot
from tsar_jax.networks import OML
from tsar_jax.networks.episodic import params_like
from tsar_jax.systems.episodic.analysis import representation

PIXELS = "byte-normalised"


def test_sparsity_and_dead_units_by_hand() -> None:
    activations = jnp.array([[0.0, 0.5, 0.01, 0.0], [0.0, 0.02, 0.0, 0.0]])
    # 0.01 itself is not above 0.01: one unit of four is active on each image, three are dead.
    assert representation.sparsity(activations) == pytest.approx(1 / 4)
    assert representation.dead_units(activations) == pytest.approx(3 / 4)
    assert representation.sparsity(activations, threshold=0.005) == pytest.approx(3 / 8)
    assert representation.dead_units(activations, threshold=0.005) == pytest.approx(1 / 2)


@pytest.fixture(scope="module")
def oml() -> tuple:
    network = OML(microbatch=None, channels=3, hidden_features=7, classes=5)
    random = np.random.default_rng(0)
    shapes = params_like(network)
    params = jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape).astype("f4"), shapes)
    images = random.integers(0, 256, (4, 3, 28, 28)).astype(np.uint8)
    at_once = jax.jit(lambda p, x: network.apply({"params": p}, x, method="representations"))
    flat = scale_omniglot(images.reshape(-1, 28, 28), PIXELS)
    return network, params, images, at_once(params, flat)


def test_streaming_gives_what_all_images_at_once_give(oml) -> None:
    network, params, images, at_once = oml
    streamed = representation.activity(network, PIXELS, params, images)
    assert set(streamed) == set(at_once) == {"representation", "features"}
    for name, units in at_once.items():
        active = np.asarray(units) > representation.THRESHOLD
        assert 0 < active.mean() < 1
        assert streamed[name].sparsity == pytest.approx(active.mean(), abs=1e-6)
        assert streamed[name].dead_units == pytest.approx((~active.any(0)).mean(), abs=1e-6)
        assert streamed[name].sparsity == pytest.approx(float(representation.sparsity(units)))
        assert streamed[name].dead_units == pytest.approx(float(representation.dead_units(units)))
        np.testing.assert_allclose(streamed[name].mean, units.mean(0), atol=1e-5)


def test_features_keep_classes_and_order(oml) -> None:
    network, params, images, at_once = oml
    features = representation.features(network, PIXELS, params, images)
    assert features["representation"].shape == (4, 3, 27)
    assert features["features"].shape == (4, 3, 7)
    for name, units in at_once.items():
        np.testing.assert_allclose(features[name].reshape(units.shape), units, atol=1e-5)


def brute_force(learn, labels, queries, neighbours):
    """The majority label of each query, ties to the nearer; and whether votes were tied."""
    found, tied = [], []
    for query in queries:
        nearest = labels[np.argsort(np.square(learn - query).sum(1), kind="stable")[:neighbours]]
        votes = {label: (nearest == label).sum() for label in nearest}
        most = max(votes.values())
        found.append(next(label for label in nearest if votes[label] == most))
        tied.append(sum(count == most for count in votes.values()) > 1)
    return np.array(found), np.array(tied)


@pytest.mark.parametrize("neighbours", [1, 4, 5])
def test_nearest_neighbours_agree_with_brute_force_and_scikit_learn(neighbours) -> None:
    random = np.random.default_rng(neighbours)
    labels = np.repeat(np.arange(6), 7)
    centres = random.normal(size=(6, 9))
    # Far from the origin, where squares are large and single precision has few digits left.
    learn = 20 + centres[labels] + random.normal(size=(42, 9))
    queries = 20 + centres[np.repeat(np.arange(6), 11)] + random.normal(size=(66, 9))
    expected, tied = brute_force(learn, labels, queries, neighbours)
    found = representation.nearest_neighbour_labels(
        jnp.float32(learn), labels, jnp.float32(queries), neighbours=neighbours, block=8
    )
    np.testing.assert_array_equal(found, expected)
    # scikit-learn gives ties to the smallest label, so they are left out of the comparison.
    theirs = KNeighborsClassifier(neighbours, algorithm="brute").fit(learn, labels)
    assert (~tied).sum() > 0
    np.testing.assert_array_equal(found[~tied], theirs.predict(queries)[~tied])
    truth = np.repeat(np.arange(6), 11)
    accuracy = representation.nearest_neighbour_accuracy(
        jnp.float32(learn), labels, jnp.float32(queries), truth, neighbours
    )
    assert float(accuracy) == pytest.approx((expected == truth).mean())


def test_tied_votes_go_to_the_nearer() -> None:
    learn = jnp.array([[1.0], [1.1], [-2.0], [-2.1], [9.0]])
    labels = jnp.array([7, 7, 3, 3, 5])
    found = representation.nearest_neighbour_labels(learn, labels, jnp.array([[0.0]]))
    assert found.tolist() == [7]


def test_held_out_images_are_never_their_own_neighbours() -> None:
    # Images 0-14 of class c lie at c, but the held-out ones at the next class's place.
    space = jnp.broadcast_to(jnp.arange(3.0)[:, None, None], (3, 20, 2))
    assert float(representation.held_out_accuracy(space)) == 1
    moved = space.at[:, 15:].set((space[:, 15:] + 1) % 3)
    assert float(representation.held_out_accuracy(moved)) == 0


def test_classes_above_chance() -> None:
    runs = jnp.array([[0.2, 0.4, 0.0, 0.0, 1.0], [0.6, 0.2, 0.2, 0.2, 0.2]])
    assert float(representation.classes_above_chance(runs, 5)) == pytest.approx(3 / 10)
    with pytest.raises(AssertionError):
        representation.classes_above_chance(runs, 10)
