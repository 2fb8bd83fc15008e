"""Raw arrays of runs, pooled, and their numbers."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.systems.episodic.analysis import co_activity
from tsar_jax.systems.episodic.analysis import regulation as analysis
from tsar_jax.systems.episodic.analysis import regulation_passes as passes
from tsar_jax.systems.episodic.analysis import regulation_record as records
from tsar_jax.systems.episodic.analysis.regulation_report import record_figures, record_lines

LABELS = np.repeat(np.arange(4), 10)
LAYERS = passes.CO_ACTIVE
SPEC = SimpleNamespace(lagged="block_2", co_active=LAYERS)


def collected(seed: int):
    """Gates [T, S] of two layers, and what a pass over them collects."""
    rng = np.random.default_rng(seed)
    gates = {layer: rng.beta(0.3, 1, (40, 30)).astype(np.float32) for layer in LAYERS}
    layers, bits = {}, {}
    for layer, values in gates.items():
        layers[layer] = analysis.init_statistics(4, 30)
        for row, label in zip(values, LABELS, strict=True):
            layers[layer] = analysis.add_gates(layers[layer], row, label)
        above = values[:, None] > np.array(analysis.THRESHOLDS)[:, None]
        bits[layer] = jnp.packbits(jnp.asarray(above), axis=-1)
    lag = analysis.init_lag(30)
    for row in gates["block_2"]:
        lag = analysis.add_lag(lag, row, jnp.ones(30, bool))
    return gates, passes.Collected(layers, lag, bits)


def output_layer(seed: int):
    rng = np.random.default_rng(seed)
    means, weights = rng.uniform(size=(4, 6, 4)), rng.normal(size=(6, 4))
    return passes.OutputLayer(jnp.asarray(means), jnp.asarray(weights), jnp.float32(0.25 * seed))


def record(seed: int) -> records.Record:
    _, found = collected(seed)
    chosen = np.ones(30, bool)
    return records.make_record(SPEC, found, chosen, output_layer(seed), lambda line: None)


@pytest.fixture(scope="module")
def two() -> list[records.Record]:
    return [record(1), record(2)]


def test_a_record_holds_the_counts_of_its_run(two) -> None:
    gates, _ = collected(1)
    made = two[0]
    assert (int(made["images"]), int(made["lag_synapses"])) == (40, 30)
    for layer in LAYERS:
        assert made[f"regulation_{layer}"].sum() == 40 * 30
        assert made[f"regulation_sum_{layer}"] == pytest.approx(gates[layer].sum(), rel=1e-5)
        fired = [(gates[layer] > threshold).sum() for threshold in analysis.THRESHOLDS]
        assert made[f"fired_{layer}"].tolist() == fired
    assert made["ranks"].sum() == 4 * 30
    assert made["lag"].sum() == 39 * 30


def test_pairs_are_those_of_synapses_that_fire_often(two) -> None:
    gates, _ = collected(1)
    for place, threshold in enumerate(analysis.THRESHOLDS):
        numbers = [
            int(((gates[layer] > threshold).sum(0) > co_activity.OFTEN * 40).sum())
            for layer in LAYERS
        ]
        assert [two[0][f"co_active_{layer}"][place] for layer in LAYERS] == numbers
        first, second = numbers
        pairs = first * (first - 1) // 2, second * (second - 1) // 2, first * second
        names = "block_1", "block_2", "block_1_block_2"
        assert tuple(two[0][f"co_activity_{name}"][place].sum() for name in names) == pairs


def test_pooling_adds_counts_and_keeps_classes_of_each_run(two) -> None:
    pooled = records.pool(two)
    assert pooled.keys() == two[0].keys()
    for name in pooled:
        if name.startswith("synapses"):
            assert pooled[name] == two[0][name] == 30
        elif name in records.BY_RUN:
            np.testing.assert_array_equal(pooled[name], np.concatenate([r[name] for r in two]))
        else:
            np.testing.assert_array_equal(pooled[name], two[0][name] + two[1][name])
    changes = records.output_changes(pooled)
    for name, values in records.output_changes(two[1]).items():
        np.testing.assert_array_equal(changes[name][2:], values)
    assert records.output_profiles(pooled)["negative"].shape == (4, 16)


def test_numbers_of_pooled_runs_are_means_over_both(two) -> None:
    numbers = records.summarise(records.pool(two))
    alone = [records.summarise(made) for made in two]

    def means(path):
        return [path(n) for n in (numbers, *alone)]

    pooled, first, second = means(lambda n: n["layers"]["block_2"]["mean_regulation"])
    assert pooled == pytest.approx((first + second) / 2)
    pooled, first, second = means(lambda n: n["layers"]["block_1"]["share_firing"]["0.25"])
    assert pooled == pytest.approx((first + second) / 2)
    assert numbers["output"]["learned_accuracy"] == pytest.approx(0.375)
    assert numbers["output"]["changes"]["before, positive"]["classes"] == 4
    information = numbers["co_activity"]["block_1_block_2"]["mean_information"]["0.1"]
    counts = sum(made["co_activity_block_1_block_2"][0] for made in two)
    assert information == pytest.approx(np.average(np.arange(2000) + 0.5, weights=counts) / 2000)


def test_a_silent_network_has_figures_and_lines_too() -> None:
    _, found = collected(3)
    layers = {name: analysis.init_statistics(4, 30) for name in LAYERS}
    for layer in LAYERS:
        for label in LABELS:
            layers[layer] = analysis.add_gates(layers[layer], jnp.zeros(30), label)
    lag = analysis.init_lag(30)._replace(images=jnp.int32(40))
    bits = {layer: jnp.zeros_like(kept) for layer, kept in found.bits.items()}
    silent = passes.Collected(layers, lag, bits)
    made = records.make_record(SPEC, silent, np.zeros(30, bool), None, lambda line: None)
    assert np.isnan(records.summarise(made)["co_activity"]["block_1"]["mean_information"]["0.1"])
    text = "\n".join(record_lines(records.summarise(made), "block_2"))
    assert "output: left out" in text
    assert sorted(record_figures(made, "silent", "", "block_2")) == [
        *("avalanches", "co_activity", "ranks", "time_lag"),
    ]


def test_correlation_of_a_histogram_is_that_of_its_samples() -> None:
    rows, columns = np.random.default_rng(0).multivariate_normal([5, 5], [[1, 0.6], [0.6, 1]], 99).T
    rows, columns = rows.astype(int), columns.astype(int)
    counts = np.zeros((12, 12), int)
    np.add.at(counts, (rows, columns), 1)
    found = records.histogram_correlation(counts)
    assert found == pytest.approx(np.corrcoef(rows, columns)[0, 1])
    assert np.isnan(records.histogram_correlation(np.diag([3, 0, 0])))
    assert np.isnan(records.histogram_correlation(np.zeros((3, 3), int)))
