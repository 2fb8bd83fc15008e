"""A record of a TSAR's regulation as figures and as lines of text."""

from typing import Any

from matplotlib.figure import Figure

from tsar_jax.systems.episodic.analysis import regulation as analysis
from tsar_jax.systems.episodic.analysis import regulation_figures as figures
from tsar_jax.systems.episodic.analysis import regulation_record as records
from tsar_jax.systems.episodic.analysis.power_law import Tail


def record_figures(
    record: records.Record, whose: str, whose_output: str, layer: str
) -> dict[str, Figure]:
    """Return the figures of a record, pooled or of one run, by name.

    whose: their title's last line, and of the output layer's figure. layer: the one shown.
    """
    numbers = records.summarise(record)
    synapses = int(record[f"synapses_{layer}"])
    lag = numbers["time_lag"]
    made = {
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
        layers: record[f"co_activity_{name}"] for name, layers in records.groups_of(record).items()
    }
    if pairs:
        made["co_activity"] = figures.co_activity_figure(pairs, analysis.THRESHOLDS, whose)
    if "output_positive" in record:
        changes, profiles = records.output_changes(record), records.output_profiles(record)
        made["output"] = figures.output_figure(changes, profiles, whose_output)
    return made


def record_lines(numbers: dict[str, Any], layer: str) -> list[str]:
    """Return the numbers that `summarise` gives in words, a line per analysis."""
    shown = numbers["layers"][layer]
    tails = ", ".join(
        f"{figures.tail_text(Tail(**tail))} for r > {name}"
        for name, tail in shown["avalanche_tails"].items()
    )

    def by_threshold(values: dict[str, float], form: str) -> str:
        return ", ".join(f"{value:{form}} for r > {name}" for name, value in values.items())

    found = [
        f"regulation: mean {shown['mean_regulation']:.4f}",
        f"avalanches: {tails}",
        f"ranks: correlation {numbers['ranks']['correlation']:.2f} of log ranks in a class and "
        "over the others",
        f"time lag: correlation {numbers['time_lag']['correlation']:.2f} of neighbouring images, "
        f"{numbers['time_lag']['synapses']:,} synapses",
    ]
    for name, pairs in numbers["co_activity"].items():
        layers = " with ".join(figures.LAYERS[layer] for layer in records.CO_ACTIVITY[name])
        found.append(
            f"co-activity of {layers}: mean information "
            f"{by_threshold(pairs['mean_information'], '.3f')}"
        )
    if not numbers["co_activity"]:
        found.append("co-activity: left out, for neither C2 nor C3 is regulated")
    if "output" not in numbers:
        return [*found, "output: left out, for the output layer is not regulated"]
    changes = numbers["output"]["changes"].items()
    words = ", ".join(f"{100 * value['mean']:+.1f} % ({name})" for name, value in changes)
    accuracy = numbers["output"]["learned_accuracy"]
    return [*found, f"output: {words}; accuracy {accuracy:.3f} on what it learned"]
