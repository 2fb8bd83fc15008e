"""An analysis of a TSAR's regulation as figures, as numbers in a file and as lines of text."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tsar_jax.systems.episodic.analysis import regulation as analysis
from tsar_jax.systems.episodic.analysis import regulation_figures as figures
from tsar_jax.systems.episodic.analysis import regulation_record as records
from tsar_jax.systems.episodic.analysis.power_law import Tail
from tsar_jax.systems.episodic.analysis.regulation_runs import Group, Mode

WHEN: Mapping[Mode, tuple[str, str]] = {
    "learning": ("while it learns", "while it learns"),
    "frozen": ("as meta-trained", "once it has learned all classes"),
}
"""When the regulation was collected, by mode: in all figures but the output layer's, and in
that."""


def record_figures(
    record: records.Record, whose: str, whose_output: str, layer: str
) -> dict[str, Figure]:
    """Return the figures of a record, pooled or of one run, by name.

    Args:
        whose: last line of the titles, but for the output layer's figure.
        whose_output: last line of the title of the output layer's figure.
        layer: the layer that is drawn.
    """
    numbers = records.summarise(record)
    synapses = int(record[f"synapses_{layer}"])
    lag = numbers["time_lag"]
    drawn = {
        "avalanches": figures.avalanche_figure(
            record[f"avalanches_{layer}"], analysis.THRESHOLDS, layer, whose
        ),
        "ranks": figures.rank_figure(
            record["ranks"], synapses, numbers["ranks"]["correlation"], layer, whose
        ),
        "time_lag": figures.lag_figure(
            record["lag"], lag["synapses"], lag["correlation"], layer, whose
        ),
    }
    pairs = {
        layers: record[f"co_activity_{name}"]
        for name, layers in records.recorded_groups(record).items()
    }
    if pairs:
        drawn["co_activity"] = figures.co_activity_figure(pairs, analysis.THRESHOLDS, whose)
    if "output_positive" in record:
        changes, profiles = records.output_changes(record), records.output_profiles(record)
        drawn["output"] = figures.output_figure(changes, profiles, whose_output)
    return drawn


def record_lines(numbers: dict[str, Any], layer: str) -> list[str]:
    """Return the numbers of `summarise` in words, a line for each analysis."""
    layer_numbers = numbers["layers"][layer]
    tails = ", ".join(
        f"{figures.tail_text(Tail(**tail))} for r > {name}"
        for name, tail in layer_numbers["avalanche_tails"].items()
    )

    def by_threshold(values: dict[str, float], form: str) -> str:
        return ", ".join(f"{value:{form}} for r > {name}" for name, value in values.items())

    lines = [
        f"regulation: mean {layer_numbers['mean_regulation']:.4f}",
        f"avalanches: {tails}",
        f"ranks: correlation {numbers['ranks']['correlation']:.2f} of log ranks in a class and "
        "over the others",
        f"time lag: correlation {numbers['time_lag']['correlation']:.2f} of neighbouring images, "
        f"{numbers['time_lag']['synapses']:,} synapses",
    ]
    for name, pairs in numbers["co_activity"].items():
        layers = " with ".join(figures.LAYERS[layer] for layer in records.CO_ACTIVITY[name])
        lines.append(
            f"co-activity of {layers}: mean information "
            f"{by_threshold(pairs['mean_information'], '.3f')}"
        )
    if not numbers["co_activity"]:
        lines.append("co-activity: left out, for neither C2 nor C3 is regulated")
    if "output" not in numbers:
        return [*lines, "output: left out, for the output layer is not regulated"]
    changes = numbers["output"]["changes"].items()
    words = ", ".join(f"{100 * value['mean']:+.1f} % ({name})" for name, value in changes)
    accuracy = numbers["output"]["learned_accuracy"]
    return [*lines, f"output: {words}; accuracy {accuracy:.3f} on what it learned"]


def draw_figures(groups: Mapping[float, Group], mode: Mode, layer: str) -> dict[str, Figure]:
    """Return all figures of runs pooled by initial bias, by path below the folder of figures.

    Args:
        groups: the runs by initial bias.
        mode: mode in which the regulation was collected.
        layer: the layer that is drawn.
    """
    when, output_when = WHEN[mode]
    several = any(len(group.runs) > 1 for group in groups.values())

    def histograms(best: bool) -> dict[str, np.ndarray]:
        rows = {}
        for bias, group in groups.items():
            record = group.best.record if best else group.pooled
            name = group.best.source.name if best or len(group.runs) == 1 else count_runs(group)
            rows[f"initial bias {bias:g} ({name})"] = record[f"regulation_{layer}"]
        return rows

    drawn = {"regulation": figures.regulation_figure(histograms(False), layer, when)}
    if several:
        title = f"{when}, the best run of each initial bias"
        drawn["regulation_best"] = figures.regulation_figure(histograms(True), layer, title)
    for bias, group in groups.items():
        folder = f"initial_bias_{bias:g}"
        best, alone = group.best.source.name, len(group.runs) == 1
        parts = [(folder, group.pooled, best if alone else count_runs(group))]
        if not alone:
            parts.append((f"{folder}/best", group.best.record, f"{best}, the best"))
        for place, record, runs in parts:
            whose = f"initial bias {bias:g}, {runs}"
            titles = f"{when}, {whose}", f"{output_when}, {whose}"
            for name, figure in record_figures(record, *titles, layer).items():
                drawn[f"{place}/{name}"] = figure
    return drawn


def count_runs(group: Group) -> str:
    """Return in words how many runs a group pools."""
    return "1 run" if len(group.runs) == 1 else f"{len(group.runs)} runs pooled"


def make_report(groups: Mapping[float, Group]) -> dict[str, Any]:
    """Return an analysis's numbers by run, and pooled by initial bias; some may be NaN."""
    return {
        "thresholds": analysis.THRESHOLDS,
        "runs": {
            run.source.name: {
                "step": run.step,
                "initial_bias": run.source.config.initial_bias,
                "rate": run.source.learning_rate,
                **records.summarise(run.record),
            }
            for group in groups.values()
            for run in group.runs
        },
        "initial_biases": {
            f"{bias:g}": {
                "runs": [run.source.name for run in group.runs],
                "best": group.best.source.name,
                "best_by": group.best_by if len(group.runs) > 1 else None,
                **records.summarise(group.pooled),
            }
            for bias, group in groups.items()
        },
    }


def without_nan(value: Any) -> Any:
    """Return nested values with None for NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
