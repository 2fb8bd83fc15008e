"""Records of a TSAR's regulation: a run's raw counts, pooled over runs, and numbers from them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tsar_jax.systems.episodic.analysis import co_activity
from tsar_jax.systems.episodic.analysis import regulation as analysis
from tsar_jax.systems.episodic.analysis.power_law import fit_tail
from tsar_jax.systems.episodic.analysis.regulation_passes import (
    CO_ACTIVE,
    Collected,
    OutputLayer,
    PassSpec,
    class_means,
)
from tsar_jax.systems.episodic.meta_test import mean_and_band

Record = dict[str, np.ndarray]
"""Raw arrays of one run or of several, by name; LAYER is block_0, block_1, block_2 or head.

synapses_LAYER [].
Sums over runs: images [], the number of images shown; regulation_LAYER [BINS];
regulation_sum_LAYER []; fired_LAYER [thresholds]; avalanches_LAYER [thresholds, AVALANCHE_BINS];
ranks [RANK_BINS, RANK_BINS]; lag [LAG_BINS, LAG_BINS]; lag_synapses []; co_activity_LAYER and
co_activity_block_1_block_2 [thresholds, co_activity.BINS]; co_active_LAYER [thresholds].
By run: output_positive, output_negative [runs, classes shown, units]; learned_accuracy [runs].
"""

CO_ACTIVITY = {
    "_".join(layers): layers for layers in [*((layer,) for layer in CO_ACTIVE), CO_ACTIVE]
}
"""Pairs that are counted, by their array's suffix: within a layer, or one of each."""

BY_RUN = ("output_positive", "output_negative", "learned_accuracy")
"""Arrays whose first axis is the run."""

REPORTS = 10
"""Lines of progress while pairs are counted."""


def make_record(
    spec: PassSpec,
    collected: Collected,
    counted: np.ndarray,
    output: OutputLayer | None,
    report: Callable[[str], None],
) -> Record:
    """Return the raw arrays of one run.

    Args:
        spec: as given to `collect_twice`.
        collected, counted: as returned by `collect_twice`.
        output: the output layer; None where it is not regulated.
        report: called with a line of progress, where a count takes long.
    """
    lagged_means = class_means(collected.layers[spec.lagged])
    record: Record = {
        "images": np.array(collected.lag.images, np.int64),
        "ranks": np.asarray(jax.jit(analysis.rank_rank)(lagged_means), np.int64),
        "lag": np.asarray(collected.lag.counts, np.int64),
        "lag_synapses": np.array(counted.sum(), np.int64),
    }
    for layer, statistics in collected.layers.items():
        record[f"synapses_{layer}"] = np.array(statistics.fired.shape[1], np.int64)
        record[f"regulation_{layer}"] = np.asarray(statistics.regulation, np.int64)
        record[f"regulation_sum_{layer}"] = np.asarray(statistics.class_sums, np.float64).sum()
        record[f"fired_{layer}"] = np.asarray(statistics.fired, np.int64).sum(1)
        record[f"avalanches_{layer}"] = np.asarray(statistics.avalanches, np.int64)
    record.update(_co_activity(spec.co_active, collected, report))
    if output is not None:
        signs = analysis.regulation_by_sign(np.asarray(output.means), np.asarray(output.weights))
        record["output_positive"] = signs.positive[None]
        record["output_negative"] = signs.negative[None]
        record["learned_accuracy"] = np.asarray(output.accuracy)[None]
    return record


def _co_activity(
    layers: tuple[str, ...], collected: Collected, report: Callable[[str], None]
) -> Record:
    """Count all pairs within each co-active layer and between two, at each threshold."""
    images = int(collected.lag.images)
    record: Record = {}
    often = {
        layer: [
            co_activity.fires_often(fired, images)
            for fired in np.asarray(collected.layers[layer].fired)
        ]
        for layer in layers
    }
    groups = {name: group for name, group in CO_ACTIVITY.items() if set(group) <= set(layers)}
    for suffix, group in groups.items():
        rows = []
        for place, threshold in enumerate(analysis.THRESHOLDS):
            sides = [(collected.bits[layer][:, place], often[layer][place]) for layer in group]

            def tell(done: int, of: int, name: str = f"{suffix} at r > {threshold}") -> None:
                if of >= 2 * REPORTS and done % (of // REPORTS) == 0:
                    report(f"co-activity of {name}: {done} of {of} blocks of pairs")

            rows.append(co_activity.count_pairs(*sides, report=tell))
        record[f"co_activity_{suffix}"] = np.array(rows)
    for layer, synapse_lists in often.items():
        record[f"co_active_{layer}"] = np.array([len(synapses) for synapses in synapse_lists])
    return record


def pool(records: Sequence[Record]) -> Record:
    """Return records of several runs as one: counts are added, arrays BY_RUN concatenated."""
    return {
        name: records[0][name]
        if name.startswith("synapses_")
        else np.concatenate([record[name] for record in records])
        if name in BY_RUN
        else np.sum([record[name] for record in records], axis=0)
        for name in records[0]
    }


def recorded_layers(record: Record) -> list[str]:
    """Return the layers that a record holds."""
    return [name.removeprefix("synapses_") for name in record if name.startswith("synapses_")]


def recorded_groups(record: Record) -> dict[str, tuple[str, ...]]:
    """Return the co-active layers that a record holds pairs of, by their arrays' suffix."""
    return {name: group for name, group in CO_ACTIVITY.items() if f"co_activity_{name}" in record}


def summarise(record: Record) -> dict[str, Any]:
    """Return a record's numbers as JSON values; NaN where nothing was counted."""
    numbers: dict[str, Any] = {
        "images": int(record["images"]),
        "layers": {layer: layer_numbers(record, layer) for layer in recorded_layers(record)},
        "ranks": {"correlation": histogram_correlation(record["ranks"])},
        "time_lag": {
            "correlation": histogram_correlation(record["lag"]),
            "synapses": int(record["lag_synapses"]),
        },
        "co_activity": {
            name: co_activity_numbers(record, name) for name in recorded_groups(record)
        },
    }
    if "output_positive" in record:
        numbers["output"] = {
            "learned_accuracy": float(record["learned_accuracy"].mean()),
            "changes": {name: band(values) for name, values in output_changes(record).items()},
        }
    return numbers


def layer_numbers(record: Record, layer: str) -> dict[str, Any]:
    """Return a layer's mean regulation, how often its synapses fire, and its avalanches' tails."""
    gates = int(record[f"synapses_{layer}"]) * int(record["images"])
    tails = [fit_tail(row)._asdict() for row in record[f"avalanches_{layer}"]]
    return {
        "synapses": int(record[f"synapses_{layer}"]),
        "mean_regulation": float(record[f"regulation_sum_{layer}"]) / gates,
        "share_firing": by_threshold(record[f"fired_{layer}"] / gates),
        "avalanche_tails": dict(zip(map(str, analysis.THRESHOLDS), tails, strict=True)),
    }


def by_threshold(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Return values [thresholds] by threshold: counts as integers, others as floats."""
    return dict(zip(map(str, analysis.THRESHOLDS), np.asarray(values).tolist(), strict=True))


def co_activity_numbers(record: Record, name: str) -> dict[str, Any]:
    """Return how many synapses fire often, their pairs, and these pairs' mean information."""
    centres = analysis.bin_centres(co_activity.BINS)
    counts = record[f"co_activity_{name}"]
    with np.errstate(invalid="ignore"):
        means = counts @ centres / counts.sum(1)
    return {
        "fire_often": {
            layer: by_threshold(record[f"co_active_{layer}"])
            for layer in recorded_groups(record)[name]
        },
        "pairs": by_threshold(counts.sum(1)),
        "mean_information": by_threshold(means),
    }


def output_changes(record: Record) -> Mapping[str, np.ndarray]:
    """Return `analysis.output_changes` with the classes of all runs concatenated."""
    runs = [
        analysis.output_changes(analysis.OutputRegulation(*signs))
        for signs in zip(record["output_positive"], record["output_negative"], strict=True)
    ]
    return {name: np.concatenate([changes[name] for changes in runs]) for name in runs[0]}


def output_profiles(record: Record) -> dict[str, np.ndarray]:
    """Return `analysis.output_profile` by sign, with the classes of all runs concatenated."""
    return {
        sign: np.concatenate([analysis.output_profile(r) for r in record[f"output_{sign}"]])
        for sign in ("positive", "negative")
    }


def band(values: np.ndarray) -> dict[str, float]:
    """Return the mean of finite values, half the width of its 95 % band, and their number."""
    finite = values[np.isfinite(values)].tolist()
    mean, width = mean_and_band(finite) if finite else (float("nan"), float("nan"))
    return {"mean": mean, "band": width, "classes": len(finite)}


def histogram_correlation(counts: np.ndarray) -> float:
    """Return the correlation of rows with columns; NaN where one of them is constant.

    Args:
        counts: a histogram [bins, bins].
    """
    with np.errstate(invalid="ignore"):
        probability = counts / counts.sum()
    bins = np.arange(len(counts)) / len(counts)
    rows, columns = (bins - bins @ probability.sum(axis) for axis in (1, 0))
    spread = np.sqrt((rows**2 @ probability.sum(1)) * (columns**2 @ probability.sum(0)))
    return float(rows @ probability @ columns / spread) if spread > 0 else float("nan")
