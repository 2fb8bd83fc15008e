"""The meta-test: the search, its settings, and the band of a mean."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tsar_jax.errors import UserError
from tsar_jax.networks import Ungated, params_like
from tsar_jax.systems.episodic import meta_test
from tsar_jax.systems.episodic.meta_test import (
    PUBLISHED_RATES,
    MetaTestConfig,
    best_learning_rate,
    check_classes,
    mean_and_band,
    run_meta_test,
    search_and_run,
)
from tsar_jax.systems.episodic.meta_test_lifetime import LifetimeSpec

NETWORK = Ungated(channels=2, classes=6)
PIXELS = "byte-normalised"
TINY = MetaTestConfig(
    classes=(3, 2), runs=2, rates=(0.1, 0.01), draws=3, population=5, learn=3, plastic=("head",)
)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shapes = params_like(NETWORK)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype) / 3, shapes)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (7, 5, 28, 28), np.uint8))


def test_meta_test_from_search_to_results(params, images):
    reported = []
    results = run_meta_test(NETWORK, params, images, TINY, reported.append, pixels=PIXELS)
    assert reported == results
    assert [row.classes for row in results] == [3, 2]
    for row in results:
        assert row.rate in TINY.rates
        assert len(row.train) == len(row.test) == len(row.per_class) == 2
        assert all(len(classes) == row.classes for classes in row.per_class)
        assert row.test == pytest.approx([np.mean(classes) for classes in row.per_class])
        assert all(0 <= value <= 1 for value in row.train + row.test)


def test_meta_test_passes_on_how_runs_and_the_search_go(params, images, monkeypatch):
    seen = []

    def recorded(run, key, **options):
        seen.append((run.args[2], options))
        return 0.1, {name: np.zeros(2) for name in ("train", "test", "per_class")}

    monkeypatch.setattr(meta_test, "search_and_run", recorded)
    options = {"iid": True, "epochs": 2, "reset": True, "class_order": "data"}
    config = dataclasses.replace(TINY, classes=(3,), ties="smallest", **options)
    run_meta_test(NETWORK, params, images, config, pixels=PIXELS)
    wanted = LifetimeSpec(classes=3, population=5, learn=3, **options)
    assert seen == [
        (wanted, {"learning_rates": (0.1, 0.01), "draws": 3, "runs": 2, "ties": "smallest"})
    ]


def test_meta_test_refuses_names_that_no_parameter_has(params, images):
    config = MetaTestConfig(classes=(2,), learn=3, plastic=("tail",))
    with pytest.raises(UserError, match="No parameter is called 'tail'"):
        run_meta_test(NETWORK, params, images, config, pixels=PIXELS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"classes": (2, 8)}, "8 classes, but there are only 7 to draw"),
        ({"classes": (6,), "population": 5}, "6 classes, but there are only 5 to draw"),
        ({"classes": (7,)}, "7 classes, but the network has 6 outputs"),
        ({"classes": (2,), "learn": 5}, "learn is 5.*at most 4"),
    ],
)
def test_meta_test_refuses_what_the_data_cannot_serve(params, images, config, message):
    with pytest.raises(UserError, match=message):
        run_meta_test(
            NETWORK, params, images, MetaTestConfig(**{"learn": 3, **config}), pixels=PIXELS
        )


def test_classes_that_just_fit_are_accepted():
    config = MetaTestConfig(classes=(6,), population=650, learn=4)
    check_classes(config, available=6, per_class=5, outputs=6)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        *(
            ({name: 0}, f"{name} must be at least 1, but is 0")
            for name in ("runs", "draws", "population", "learn", "epochs")
        ),
        ({"classes": ()}, "classes must be"),
        ({"classes": (3, 0)}, "classes must be"),
        ({"rates": ()}, "rates must be positive"),
        ({"rates": (1e-3, 0.0)}, "rates must be positive"),
        ({"plastic": ()}, "plastic names nothing"),
        ({"memory": 0}, "memory must be at least 1, but is 0"),
    ],
)
def test_impossible_settings_are_refused(settings_, message):
    with pytest.raises(UserError, match=message):
        MetaTestConfig(**settings_)


def test_published_grid_has_fourteen_falling_rates():
    assert len(PUBLISHED_RATES) == 14
    assert list(PUBLISHED_RATES) == sorted(PUBLISHED_RATES, reverse=True)
    assert (PUBLISHED_RATES[0], PUBLISHED_RATES[-1]) == (1e-3, 1e-5)


@settings(max_examples=200, deadline=None)
@given(
    rates=st.lists(st.sampled_from([1e-4, 3e-4, 1e-3, 3e-3, 1e-2]), min_size=1, unique=True),
    draws=st.integers(1, 6),
    ties=st.sampled_from(["largest", "smallest"]),
    data=st.data(),
)
def test_best_learning_rate_is_the_mode_of_the_best_of_each_draw(rates, draws, ties, data):
    row = st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=len(rates), max_size=len(rates))
    accuracy = data.draw(st.lists(row, min_size=draws, max_size=draws))
    winners = [
        max(rate for rate, value in zip(rates, values, strict=True) if value == max(values))
        for values in accuracy
    ]
    count = Counter(winners)
    modes = [rate for rate in count if count[rate] == max(count.values())]
    wanted = max(modes) if ties == "largest" else min(modes)
    assert best_learning_rate(np.array(accuracy), rates, ties) == wanted


def test_the_search_breaks_ties_as_it_is_told():
    """Of two draws one rate is best in each."""
    accuracy = jnp.array([[0.1, 0.3, 0.2], [0.3, 0.2, 0.1]])

    def run(keys, rates, count):
        assert count == 6 or len(set(np.asarray(rates[:2]).tolist())) == 1
        return {"test": accuracy.reshape(-1)}

    def found(**ties):
        options = {"learning_rates": (1e-3, 1e-4, 1e-5), "draws": 2, "runs": 2, **ties}
        return search_and_run(run, jax.random.key(0), **options)[0]

    assert (found(ties="largest"), found(ties="smallest"), found()) == (1e-3, 1e-4, 1e-3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_band_is_half_of_students_interval(values):
    mean, band = mean_and_band(values)
    assert mean == pytest.approx(np.mean(values))
    error = stats.sem(values)
    if error < 1e-9:
        assert band == pytest.approx(0, abs=1e-6)
    else:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error)
        assert band == pytest.approx((high - low) / 2)


@pytest.mark.parametrize(("fresh", "distinct"), [(False, 2), (True, 6)])
def test_rates_of_a_search_share_draws_or_have_draws_of_their_own(fresh, distinct):
    called = []

    def run(keys, rates, count):
        called.append((jax.random.key_data(keys)[:count], np.asarray(rates)[:count]))
        return {"test": jnp.asarray(rates)}

    rate, found = search_and_run(
        run,
        jax.random.key(0),
        learning_rates=(1e-3, 1e-1, 1e-2),
        draws=2,
        runs=4,
        fresh_draws=fresh,
    )
    (searched, rates), (ran, at) = called
    np.testing.assert_allclose(rates, [1e-3, 1e-1, 1e-2] * 2)
    assert len(np.unique(searched, axis=0)) == distinct
    assert rate == 1e-1
    np.testing.assert_allclose(at, [1e-1] * 4)
    assert len(found["test"]) == 4
    assert len(np.unique(np.concatenate([searched, ran]), axis=0)) == distinct + 4


def test_one_value_has_no_band():
    assert mean_and_band([0.25]) == (0.25, 0.0)
