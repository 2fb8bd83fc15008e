"""Analyse how a meta-trained TSAR regulates its synapses while it sees a new domain.

Examples:
  tsar-jax run tsar_analyse --runs runs/NAME --out results/NAME       3,000 of mini-ImageNet
  tsar-jax run tsar_analyse --runs runs/NAME --out results/NAME --classes 5 --learn 4
                                                                      20 images: does it run?
  tsar-jax run tsar_analyse --runs runs/NAME --out results/NAME --target cifar100 --layer block_1
  tsar-jax run tsar_analyse --runs runs/bias-8 runs/bias-4 runs/bias0 --out results/biases
                                                                      a line per initial bias

Shows the images of a transfer, class after class, to the meta-trained network and counts its
regulation: how it is distributed, avalanches, the ranks of synapses over classes, which synapses
are active together, and how regulation lasts from image to image. Then the network learns the
images, everything but its encoder, and its output layer's regulation is compared before, during
and after each class. Several runs share the figure of the distribution; the others are of the
first. Writes OUT/analysis.json and OUT/figures/NAME.png and .pdf.
"""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments._meta_trained import load_state, read_run
from experiments.tsar_meta_train import EXPERIMENT
from experiments.tsar_transfer import Normalise, load_target, normaliser
from tsar_jax import cli
from tsar_jax.analysis import regulation as analysis
from tsar_jax.analysis import regulation_figures as figures
from tsar_jax.analysis.regulation_passes import (
    CO_ACTIVE,
    FIRING,
    Shown,
    check_countable,
    class_means,
    collect_layers,
    count_co_activity,
    count_lag,
    draw_images,
    learn_and_look,
)
from tsar_jax.analysis.style import save_figure
from tsar_jax.errors import UserError, check_positive, check_rates
from tsar_jax.evaluation.protocol import mean_and_band
from tsar_jax.evaluation.transfer import TransferConfig, check_target
from tsar_jax.models import TSAR
from tsar_jax.systems.tsar import TsarConfig, make_network, make_system
from tsar_jax.training.run import check_writable, write_atomically

OFTEN = 0.01
MOST = 500


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to analyse, and on which images."""

    runs: tuple[Path, ...]
    """Folders of meta-trained runs of model tsar; the first is analysed in full."""
    out: Path
    """Folder to write to."""
    target: Literal["mini_imagenet", "cifar100", "omniglot"] = "mini_imagenet"
    """The new domain."""
    classes: int = 100
    """Its classes, in random order."""
    learn: int = 30
    """Images of a class, one after another."""
    layer: Literal["block_0", "block_1", "block_2", "head"] = "block_2"
    """Whose regulation is shown: block_2 is the third convolution, C3."""
    rate: float = 1e-3
    """Learning rate of Adam before the output layer is looked at."""
    head_bias: float = -1.7
    """Bias that the fresh output head of the regulator begins with."""
    step: int | None = None
    """Checkpoint to analyse (default: the newest)."""
    seed: int = 0
    """Of the classes and images drawn, and of the fresh output layer: 0 to 2**32 - 1."""

    def __post_init__(self) -> None:
        """Raises UserError for impossible values."""
        if not self.runs:
            raise UserError("--runs names no run: name at least one meta-trained run's folder.")
        check_positive(self, "learn")
        if self.classes < 3:
            raise UserError(
                f"classes must be at least 3, for one to have a class before and after it, "
                f"but is {self.classes}."
            )
        check_rates(self, "rate")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must be from 0 to 2**32 - 1, but is {self.seed}.")


class Finding(NamedTuple):
    """One analysis: what analysis.json holds of it, its figure, and its line on the screen."""

    numbers: dict[str, Any]
    figure: Figure
    line: str


def main() -> None:
    settings = tyro.cli(Arguments, description=__doc__, prog="tsar-jax run tsar_analyse")
    configs = [read_tsar(path, settings.layer) for path in settings.runs]
    check_writable(settings.out, "--out")
    images, normalise = load_target(settings.target, configs[0].pixels)
    protocol = TransferConfig(
        classes=settings.classes,
        learn=settings.learn,
        test=False,
        head_bias=settings.head_bias,
        rates=(settings.rate,),
    )
    check_target(protocol, images.shape, configs[0].outputs)
    draw_key, fresh_key = jax.random.split(jax.random.key(settings.seed))
    shown = draw_images(images, protocol, draw_key)

    network = make_network(configs[0])
    assert isinstance(network, TSAR)
    params, step = load_params(settings.runs[0], configs[0], settings.step)
    layers = tuple(network.regulated)
    check_countable(params, layers, shown)
    counted = collect_layers(network, normalise, layers, settings.classes, params, shown)
    names = run_names(settings.runs, configs)
    histograms = {names[0]: np.asarray(counted[settings.layer].regulation)}
    for name, path, config in list(zip(names, settings.runs, configs, strict=True))[1:]:
        histograms[name] = other_histogram(path, config, settings, shown)

    report: dict[str, Any] = {
        "run": settings.runs[0].name,
        "step": step,
        "settings": settings_to_json(settings),
        "thresholds": analysis.THRESHOLDS,
        "layers": {layer: layer_numbers(found) for layer, found in counted.items()},
    }
    first = counted[settings.layer]
    findings = {
        "regulation": regulation(histograms, settings.layer),
        "avalanches": avalanches(first, settings.layer),
        "ranks": class_ranks(first, settings.layer),
        "time_lag": time_lag(network, normalise, params, shown, first, settings.layer),
    }
    if set(CO_ACTIVE) <= set(layers):
        findings["co_activity"] = co_activity(network, normalise, params, shown, counted)
    else:
        print("co activity: left out, for the run does not regulate both C2 and C3")
    if "head" in layers:
        findings["output"] = output_layer(network, normalise, protocol, params, shown, fresh_key)
    else:
        print("output: left out, for the run does not regulate the output layer")
    write_and_show(settings.out, report, findings)


def read_tsar(path: Path, layer: str) -> TsarConfig:
    """The config of a run of model tsar that regulates a layer; UserError for any other."""
    config = read_run(path, EXPERIMENT, TsarConfig)
    if config.model != "tsar":
        raise UserError(
            f"{path} is a run of model {config.model}, which regulates no weights: "
            "name runs of model tsar."
        )
    if layer not in config.regulated:
        raise UserError(
            f"{path} does not regulate layer {layer}: choose from {', '.join(config.regulated)}."
        )
    return config


def load_params(path: Path, config: TsarConfig, step: int | None) -> tuple[Any, int]:
    """A run's parameters and their step, without the optimiser's state."""
    state, found = load_state(path, make_system(config), step)
    return state.params, found


def run_names(paths: tuple[Path, ...], configs: list[TsarConfig]) -> list[str]:
    """Runs as the legend names them: by initial bias and folder."""
    short = len({path.name for path in paths}) == len(paths)
    return [
        f"initial bias {config.initial_bias:g} ({path.name if short else path})"
        for path, config in zip(paths, configs, strict=True)
    ]


def other_histogram(
    path: Path, config: TsarConfig, settings: Arguments, shown: Shown
) -> np.ndarray:
    """The histogram [bins] of another run's regulation of the layer shown."""
    # The heads began elsewhere, but are read from the checkpoint: one program serves all biases.
    network = make_network(dataclasses.replace(config, initial_bias=0.0))
    assert isinstance(network, TSAR)
    params, _ = load_params(path, config, settings.step)
    layers = (settings.layer,)
    normalise = normaliser(settings.target, config.pixels)
    check_countable(params, layers, shown)
    counted = collect_layers(network, normalise, layers, settings.classes, params, shown)
    return np.asarray(counted[settings.layer].regulation)


def layer_numbers(found: analysis.FirstPass) -> dict[str, Any]:
    """A layer's mean regulation, how often its synapses fire, and the slopes."""
    images = int(found.class_counts.sum())
    slope, _ = analysis.log_log_slope(
        np.asarray(found.regulation), analysis.bin_centres(analysis.BINS)
    )
    return {
        "synapses": found.fired.size,
        "mean_regulation": float(class_means(found).mean()),
        "share_firing": float(found.fired.mean()) / images,
        "regulation_slope": slope,
        "avalanche_slopes": avalanche_slopes(found),
    }


def avalanche_slopes(found: analysis.FirstPass) -> list[float]:
    """Of the log-log histogram of each threshold."""
    centres = analysis.bin_centres(analysis.AVALANCHE_BINS)
    return [analysis.log_log_slope(row, centres)[0] for row in np.asarray(found.avalanches)]


def histogram_correlation(counts: np.ndarray) -> float:
    """Correlation of rows with columns, in bins; counts [bins, bins]. NaN where one is constant."""
    share = counts / counts.sum()
    places = np.arange(len(counts)) / len(counts)
    rows, columns = (places - places @ share.sum(axis) for axis in (1, 0))
    spread = np.sqrt((rows**2 @ share.sum(1)) * (columns**2 @ share.sum(0)))
    return float(rows @ share @ columns / spread) if spread > 0 else float("nan")


def regulation(histograms: dict[str, np.ndarray], layer: str) -> Finding:
    """How regulation is distributed, by run."""
    centres = analysis.bin_centres(analysis.BINS)
    slopes = {name: analysis.log_log_slope(row, centres)[0] for name, row in histograms.items()}
    line = ", ".join(f"slope {slope:.2f} at {name}" for name, slope in slopes.items())
    return Finding({"slopes": slopes}, figures.regulation_figure(histograms, layer), line)


def avalanches(found: analysis.FirstPass, layer: str) -> Finding:
    """How many synapses are above a threshold at once."""
    slopes = dict(zip(map(str, analysis.THRESHOLDS), avalanche_slopes(found), strict=True))
    figure = figures.avalanche_figure(np.asarray(found.avalanches), analysis.THRESHOLDS, layer)
    line = ", ".join(f"slope {slope:.2f} for r > {name}" for name, slope in slopes.items())
    return Finding({"slopes": slopes}, figure, line)


def class_ranks(found: analysis.FirstPass, layer: str) -> Finding:
    """Whether the synapses most open in one class are so in the others."""
    counts = np.asarray(jax.jit(analysis.rank_rank)(class_means(found)))
    correlation = histogram_correlation(counts)
    figure = figures.rank_figure(counts, found.fired.size, correlation, layer)
    line = f"correlation {correlation:.2f} of log ranks in a class and over the others"
    return Finding({"correlation": correlation}, figure, line)


def time_lag(
    network: TSAR,
    normalise: Normalise,
    params: Any,
    shown: Shown,
    found: analysis.FirstPass,
    layer: str,
) -> Finding:
    """How regulation lasts from one image to the next, in synapses neither silent nor open."""
    chosen = analysis.middling(np.asarray(class_means(found).mean(0)))
    counts = np.asarray(count_lag(network, normalise, layer, params, shown, jnp.asarray(chosen)))
    correlation, synapses = histogram_correlation(counts), int(chosen.sum())
    line = f"correlation {correlation:.2f} of neighbouring images, {synapses} synapses"
    return Finding(
        {"correlation": correlation, "synapses": synapses},
        figures.lag_figure(counts, synapses, correlation, layer),
        line,
    )


def co_activity(
    network: TSAR,
    normalise: Normalise,
    params: Any,
    shown: Shown,
    counted: dict[str, analysis.FirstPass],
) -> Finding:
    """Which synapses of the second and third convolution fire for the same images."""
    images = shown.labels.size
    fired = {layer: np.asarray(counted[layer].fired) for layer in CO_ACTIVE}
    often = [int((fired[layer] > OFTEN * images).sum()) for layer in CO_ACTIVE]
    one, two = (analysis.most_active(fired[layer], images, OFTEN, MOST) for layer in CO_ACTIVE)
    information = np.zeros((one.size, two.size))
    if information.size:
        joint = np.asarray(count_co_activity(network, normalise, params, shown, one, two))
        information = analysis.normalised_mutual_information(
            joint, fired[CO_ACTIVE[0]][one], fired[CO_ACTIVE[1]][two], images
        )
    mean = float(information.mean()) if information.size else float("nan")
    needed = f"r > {FIRING} on more than {OFTEN:.0%} of {images:,} images"
    numbers = {
        "layers": CO_ACTIVE,
        "threshold": FIRING,
        "fire_often": often,
        "shown": [one.size, two.size],
        "mean_information": mean,
    }
    return Finding(
        numbers,
        figures.co_activity_figure(information, CO_ACTIVE, (often[0], often[1]), needed),
        f"{often[0]} synapses of C2 and {often[1]} of C3 fire often, "
        f"mean information {mean:.2f} of those shown",
    )


def output_layer(
    network: TSAR,
    normalise: Normalise,
    protocol: TransferConfig,
    params: Any,
    shown: Shown,
    key: jax.Array,
) -> Finding:
    """How a class's own output weights are regulated for it, and for its neighbours in time."""
    means, weights, accuracy = learn_and_look(network, normalise, protocol, params, shown, key)
    with warnings.catch_warnings():
        # A unit of a narrow network may have no positive or no negative weight: mean of nothing.
        warnings.simplefilter("ignore", RuntimeWarning)
        changes = analysis.output_changes(np.asarray(means), np.asarray(weights))
    bands = {}
    for name, values in changes.items():
        finite = values[np.isfinite(values)].tolist()
        mean, band = mean_and_band(finite) if finite else (float("nan"), float("nan"))
        bands[name] = {"mean": mean, "band": band, "classes": len(finite)}
    line = ", ".join(f"{100 * value['mean']:+.1f} % ({name})" for name, value in bands.items())
    numbers = {"learned_accuracy": float(accuracy), "changes": bands}
    return Finding(
        numbers,
        figures.output_figure(changes, protocol.classes),
        f"{line}; accuracy {float(accuracy):.3f} on what it learned",
    )


def settings_to_json(settings: Arguments) -> dict[str, Any]:
    """Settings as JSON values; runs by the names of their folders."""
    values = dataclasses.asdict(settings)
    del values["out"]
    return {**values, "runs": [path.name for path in settings.runs]}


def without_nan(value: Any) -> Any:
    """JSON has no NaN: None in its place."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def write_and_show(out: Path, report: dict[str, Any], findings: dict[str, Finding]) -> None:
    """Write numbers and figures; print a line per analysis and where they are."""
    report = {**report, **{name: finding.numbers for name, finding in findings.items()}}
    path = out / "analysis.json"
    write_atomically(path, json.dumps(without_nan(report), indent=2, allow_nan=False) + "\n")
    for name, finding in findings.items():
        save_figure(finding.figure, out / "figures" / name)
        print(f"{name.replace('_', ' ')}: {finding.line}")
    print(f"results: {path}")
    print(f"figures: {out / 'figures'}")


if __name__ == "__main__":
    cli.run_main(main)
