"""What the analyses of a TSAR keep of a run: raw counts, pooled over runs, and their numbers."""

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
    Plan,
    class_means,
)
from tsar_jax.systems.episodic.meta_test import mean_and_band

Record = dict[str, np.ndarray]
"""Raw arrays of one run or of several, by name; LAYER is block_0, block_1, block_2 or head.

images []: how many were shown. synapses_LAYER []. Of counts, sums over runs: regulation_LAYER
[BINS], regulation_sum_LAYER [], fired_LAYER [thresholds], avalanches_LAYER [thresholds,
AVALANCHE_BINS], ranks [RANK_BINS, RANK_BINS], lag [LAG_BINS, LAG_BINS], lag_synapses [],
co_activity_LAYER and co_activity_block_1_block_2 [thresholds, co_activity.BINS], co_active_LAYER
[thresholds]. By run: output_positive, output_negative [runs, classes shown, units], and
learned_accuracy [runs].
"""

CO_ACTIVITY = {"_".join(layers): layers for layers in [*((one,) for one in CO_ACTIVE), CO_ACTIVE]}
"""Pairs that are counted, by their array's suffix: within a layer, or one of each."""

BY_RUN = ("output_positive", "output_negative", "learned_accuracy")


def make_record(
    plan: Plan,
    found: Collected,
    chosen: np.ndarray,
    output: OutputLayer | None,
    report: Callable[[str], None],
) -> Record:
    """Return the raw arrays of one run.

    Args:
        plan, found, chosen: as `collect_twice` was asked and answered.
        output: the output layer; None where it is not regulated.
        report: called with a line of progress, where a count takes long.
    """
    record: Record = {
        "images": np.array(found.lag.seen, np.int64),
        "ranks": np.asarray(
            jax.jit(analysis.rank_rank)(class_means(found.layers[plan.lagged])), np.int64
        ),
        "lag": np.asarray(found.lag.counts, np.int64),
        "lag_synapses": np.array(chosen.sum(), np.int64),
    }
    for layer, counted in found.layers.items():
        record[f"synapses_{layer}"] = np.array(counted.fired.shape[1], np.int64)
        record[f"regulation_{layer}"] = np.asarray(counted.regulation, np.int64)
        record[f"regulation_sum_{layer}"] = np.asarray(counted.class_sums, np.float64).sum()
        record[f"fired_{layer}"] = np.asarray(counted.fired, np.int64).sum(1)
        record[f"avalanches_{layer}"] = np.asarray(counted.avalanches, np.int64)
    record.update(_co_activity(plan.co_active, found, report))
    if output is not None:
        signs = analysis.by_sign(np.asarray(output.means), np.asarray(output.weights))
        record["output_positive"] = signs.positive[None]
        record["output_negative"] = signs.negative[None]
        record["learned_accuracy"] = np.asarray(output.accuracy)[None]
    return record


def _co_activity(
    layers: tuple[str, ...], found: Collected, report: Callable[[str], None]
) -> Record:
    """Count all pairs within each co-active layer and between two, at each threshold."""
    images = int(found.lag.seen)
    record: Record = {}
    often = {
        layer: [
            co_activity.fires_often(fired, images)
            for fired in np.asarray(found.layers[layer].fired)
        ]
        for layer in layers
    }
    groups = {name: group for name, group in CO_ACTIVITY.items() if set(group) <= set(layers)}
    for suffix, group in groups.items():
        rows = []
        for place, threshold in enumerate(analysis.THRESHOLDS):
            sides = [(found.bits[layer][:, place], often[layer][place]) for layer in group]

            def tell(done: int, of: int, name: str = f"{suffix} at r > {threshold}") -> None:
                if of >= 20 and done % (of // 10) == 0:
                    report(f"co-activity of {name}: {done} of {of} blocks of pairs")

            rows.append(co_activity.count_pairs(*sides, report=tell))
        record[f"co_activity_{suffix}"] = np.array(rows)
    for layer, chosen in often.items():
        record[f"co_active_{layer}"] = np.array([len(synapses) for synapses in chosen])
    return record


def pool(records: Sequence[Record]) -> Record:
    """Return records of several runs as one: counts added, what is kept by run side by side."""
    return {
        name: records[0][name]
        if name.startswith("synapses_")
        else np.concatenate([record[name] for record in records])
        if name in BY_RUN
        else np.sum([record[name] for record in records], axis=0)
        for name in records[0]
    }


def layers_of(record: Record) -> list[str]:
    """Return the layers that a record holds."""
    return [name.removeprefix("synapses_") for name in record if name.startswith("synapses_")]


def groups_of(record: Record) -> dict[str, tuple[str, ...]]:
    """Return the co-active layers that a record holds pairs of, by their arrays' suffix."""
    return {name: group for name, group in CO_ACTIVITY.items() if f"co_activity_{name}" in record}


def summarise(record: Record) -> dict[str, Any]:
    """Return the numbers of a record, as JSON holds them (with NaN where there is nothing)."""
    numbers: dict[str, Any] = {
        "images": int(record["images"]),
        "layers": {layer: layer_numbers(record, layer) for layer in layers_of(record)},
        "ranks": {"correlation": histogram_correlation(record["ranks"])},
        "time_lag": {
            "correlation": histogram_correlation(record["lag"]),
            "synapses": int(record["lag_synapses"]),
        },
        "co_activity": {name: co_activity_numbers(record, name) for name in groups_of(record)},
    }
    if "output_positive" in record:
        numbers["output"] = {
            "learned_accuracy": float(record["learned_accuracy"].mean()),
            "changes": {name: band(values) for name, values in output_changes(record).items()},
        }
    return numbers


def layer_numbers(record: Record, layer: str) -> dict[str, Any]:
    """Return a layer's mean regulation, how often its synapses fire, and its avalanches' tails."""
    shown = int(record[f"synapses_{layer}"]) * int(record["images"])
    tails = [fit_tail(row)._asdict() for row in record[f"avalanches_{layer}"]]
    return {
        "synapses": int(record[f"synapses_{layer}"]),
        "mean_regulation": float(record[f"regulation_sum_{layer}"]) / shown,
        "share_firing": by_threshold(record[f"fired_{layer}"] / shown),
        "avalanche_tails": dict(zip(map(str, analysis.THRESHOLDS), tails, strict=True)),
    }


def by_threshold(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Return one value per threshold, by threshold: counts as integers, others as floats."""
    return dict(zip(map(str, analysis.THRESHOLDS), np.asarray(values).tolist(), strict=True))


def co_activity_numbers(record: Record, name: str) -> dict[str, Any]:
    """Return how many synapses fire often, their pairs, and these pairs' mean information."""
    centres = analysis.bin_centres(co_activity.BINS)
    counts = record[f"co_activity_{name}"]
    with np.errstate(invalid="ignore"):
        means = counts @ centres / counts.sum(1)
    return {
        "fire_often": {
            layer: by_threshold(record[f"co_active_{layer}"]) for layer in groups_of(record)[name]
        },
        "pairs": by_threshold(counts.sum(1)),
        "mean_information": by_threshold(means),
    }


def output_changes(record: Record) -> Mapping[str, np.ndarray]:
    """Return the relative changes of `analysis.output_changes`, all runs' classes together."""
    runs = [
        analysis.output_changes(analysis.OutputRegulation(*signs))
        for signs in zip(record["output_positive"], record["output_negative"], strict=True)
    ]
    return {name: np.concatenate([changes[name] for changes in runs]) for name in runs[0]}


def output_profiles(record: Record) -> dict[str, np.ndarray]:
    """Return `analysis.output_profile` by sign, all runs' classes together."""
    return {
        sign: np.concatenate([analysis.output_profile(r) for r in record[f"output_{sign}"]])
        for sign in ("positive", "negative")
    }


def band(values: np.ndarray) -> dict[str, float]:
    """Return the mean of what is finite, the half width of its 95 % band, and how many it is."""
    finite = values[np.isfinite(values)].tolist()
    mean, width = mean_and_band(finite) if finite else (float("nan"), float("nan"))
    return {"mean": mean, "band": width, "classes": len(finite)}


def histogram_correlation(counts: np.ndarray) -> float:
    """Correlation of rows with columns, in bins; counts [bins, bins]. NaN where one is constant."""
    with np.errstate(invalid="ignore"):
        share = counts / counts.sum()
    places = np.arange(len(counts)) / len(counts)
    rows, columns = (places - places @ share.sum(axis) for axis in (1, 0))
    spread = np.sqrt((rows**2 @ share.sum(1)) * (columns**2 @ share.sum(0)))
    return float(rows @ share @ columns / spread) if spread > 0 else float("nan")
