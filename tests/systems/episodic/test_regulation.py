"""TSAR's analyses against brute force on small arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from tsar_jax.networks import TSAR, init_params, run_stages
from tsar_jax.systems.episodic.analysis import regulation as r

pytestmark = pytest.mark.usefixtures("quickly_compiled")

GATES = np.random.default_rng(0).beta(0.2, 1.5, (40, 30)).astype(np.float32)
LABELS = np.repeat(np.arange(4), 10)


@pytest.fixture(scope="module")
def first():
    def fold(gates, labels):
        def step(state, moment):
            return r.add_gates(state, *moment), None

        return jax.lax.scan(step, r.init_statistics(4, 30), (gates, labels))[0]

    return jax.device_get(jax.jit(fold)(GATES, LABELS))


def test_regulation_histogram_is_numpys(first):
    wanted, _ = np.histogram(GATES, r.BINS, (0, 1))
    # A value at a bin's very edge may be counted next door: compare cumulative counts.
    assert np.abs(np.cumsum(first.regulation) - np.cumsum(wanted)).max() <= 1
    assert first.regulation.sum() == GATES.size


def test_avalanches_are_shares_of_synapses_above_thresholds(first):
    for threshold, counts in zip(r.THRESHOLDS, first.avalanches, strict=True):
        shares = (threshold < GATES).mean(1)
        assert counts.sum() == 40
        mean = (counts * r.bin_centres(r.AVALANCHE_BINS)).sum() / 40
        assert mean == pytest.approx(shares.mean(), abs=1 / r.AVALANCHE_BINS)


def test_class_sums_and_firing(first):
    for label in range(4):
        np.testing.assert_allclose(
            first.class_sums[label], GATES[label == LABELS].sum(0), rtol=1e-5
        )
    np.testing.assert_array_equal(first.class_counts, 10)
    for threshold, fired in zip((0.1, 0.25, 0.5), first.fired, strict=True):
        np.testing.assert_array_equal(fired, (threshold < GATES).sum(0))


# Few sizes, because each is compiled.
@given(
    st.sampled_from([1, 2, 5, 20]).flatmap(
        lambda size: st.lists(st.integers(0, 5), min_size=size, max_size=size)
    )
)
@settings(max_examples=20, deadline=None)
def test_ranks_are_scipys(values):
    wanted = rankdata(-np.array(values), method="ordinal")
    np.testing.assert_array_equal(r.ranks(jnp.array(values)), wanted)


def test_rank_rank_is_brute_force():
    means = np.stack([GATES[label == LABELS].mean(0) for label in range(4)])
    wanted = np.zeros((r.RANK_BINS, r.RANK_BINS), int)
    for label in range(4):
        own = rankdata(-means[label], method="ordinal")
        others = rankdata(-np.delete(means, label, 0).mean(0), method="ordinal")
        rows, columns = (
            np.minimum((np.log10(x) / np.log10(30) * r.RANK_BINS).astype(int), r.RANK_BINS - 1)
            for x in (own, others)
        )
        np.add.at(wanted, (rows, columns), 1)
    found = np.asarray(jax.jit(r.rank_rank)(means))
    assert found.sum() == wanted.sum() == 4 * 30
    assert np.abs(found - wanted).sum() <= 4  # logarithms round differently at a bin's edge


def test_time_lag_counts_pairs_of_neighbouring_images():
    chosen = np.arange(30) % 3 == 0
    state = r.init_lag(30)
    for gates in GATES[:6]:
        state = r.add_lag(state, gates, chosen)
    wanted, _, _ = np.histogram2d(
        GATES[:5, chosen].ravel(), GATES[1:6, chosen].ravel(), r.LAG_BINS, [(0, 1), (0, 1)]
    )
    assert state.counts.sum() == wanted.sum() == 5 * chosen.sum()
    assert np.abs(np.asarray(state.counts) - wanted).sum() <= 4


def test_synapses_lie_between_percentiles():
    assert np.flatnonzero(r.between_percentiles(np.arange(101.0))).tolist() == list(range(75, 100))


def test_regulation_by_sign_is_a_plain_loop():
    rng = np.random.default_rng(2)
    means, weights = rng.uniform(size=(4, 12, 4)), rng.normal(size=(12, 4))
    weights[:, 3] = np.abs(weights[:, 3])  # no negative weight
    found = r.regulation_by_sign(means, weights)
    for shown in range(4):
        for unit in range(4):
            positive = [means[shown, f, unit] for f in range(12) if weights[f, unit] > 0]
            negative = [means[shown, f, unit] for f in range(12) if weights[f, unit] < 0]
            assert found.positive[shown, unit] == pytest.approx(np.mean(positive))
            if unit < 3:
                assert found.negative[shown, unit] == pytest.approx(np.mean(negative))
    assert np.isnan(found.negative[:, 3]).all()


def test_output_windows_are_the_five_classes_before_and_the_ten_after():
    classes = 20
    regulation = np.random.default_rng(3).uniform(0.1, 1, (classes, classes))
    changes = r.output_changes(r.OutputRegulation(regulation, regulation + 1))
    profile = r.output_profile(regulation)
    assert profile.shape == (classes - 2, 16)
    for row, unit in enumerate(range(1, classes - 1)):
        before = np.mean([regulation[t, unit] for t in range(classes) if unit - 5 <= t < unit])
        after = np.mean([regulation[t, unit] for t in range(classes) if unit < t <= unit + 10])
        during = regulation[unit, unit]
        assert changes["before, positive"][row] == pytest.approx(during / before - 1)
        assert changes["after, positive"][row] == pytest.approx(during / after - 1)
        assert changes["after, negative"][row] == pytest.approx((during + 1) / (after + 1) - 1)
        for offset in range(-5, 11):
            if 0 <= unit + offset < classes:
                wanted = regulation[unit + offset, unit] / before - 1
                assert profile[row, offset + 5] == pytest.approx(wanted)
            else:
                assert np.isnan(profile[row, offset + 5])


def test_fold_sees_every_image_in_order_under_its_own_gates():
    network = TSAR(channels=2, regulator_channels=2, classes=3)
    images = np.random.default_rng(1).normal(size=(4, 28, 28, 1)).astype(np.float32)

    def fold(state, gates, label):
        return state * 2 + label * gates["head"]

    def both(key):
        params = init_params(network, key)
        found = r.fold_gates(
            network, params, images, jnp.arange(4), lambda x: x, fold, jnp.zeros((2, 3))
        )
        return found, run_stages(network, params, images, 0, 2)[1]["head"]["kernel"]

    found, gates = jax.jit(both)(jax.random.key(0))
    np.testing.assert_allclose(found, gates[1] * 4 + gates[2] * 4 + gates[3] * 3, rtol=1e-4)
