"""Analyse how a meta-trained TSAR regulates its synapses while it learns a new domain.

Examples:
  tsar-jax run tsar_analyse --runs runs/NAME --out results/NAME       3,000 of mini-ImageNet
  tsar-jax run tsar_analyse --runs runs/NAME --out results/NAME --classes 5 --learn 4
                                                                      20 images: does it run?
  tsar-jax run tsar_analyse --runs runs/NAME --out results/NAME --mode frozen
                                                    the network as it was meta-trained
  tsar-jax run tsar_analyse --runs runs/NAME --out results/NAME --target cifar100 --layer block_1
  tsar-jax run tsar_analyse --runs runs/seed0 runs/seed1 runs/bias0 --out results/biases
                                    runs of one initial bias are pooled; a line per initial bias

Learns the images of a transfer, class after class, everything but the encoder, as tsar_transfer
does (output layer and its regulator's head begin anew), and counts the regulation of each image
before its own update: how it is distributed, avalanches, the ranks of synapses over classes,
which synapses are active together, how regulation lasts from image to image, and the output
layer's before, during and after each class. The stream is learned twice, for the synapses whose
time lag is counted are known only at its end. With --mode frozen the images are shown to the
network as it was meta-trained, and its output layer is looked at once it has learned them all.

Runs of the same initial bias (seeds) are pooled; of several, the best is also shown on its own:
that of the highest accuracy at the end of its transfer to TARGET (by tsar_transfer, or
tsar_bias_sweep) where all have one, with the same settings, else of the highest query accuracy
over the last tenth of its meta-training. A transfer counts where what learned is as published,
class after class, from what had been meta-trained.

Writes OUT/analysis.json; OUT/arrays/RUN.npz, the raw counts, and initial_bias_BIAS.npz, pooled;
OUT/figures/regulation.png and .pdf (a line per initial bias), regulation_best; and of each
initial bias OUT/figures/initial_bias_BIAS/NAME and best/NAME.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from tsar_jax import cli
from tsar_jax.errors import (
    UserError,
    check_positive,
    check_rates,
    check_seed,
    nearest_hint,
    shown,
)
from tsar_jax.networks import TSAR
from tsar_jax.plots.style import save_figure
from tsar_jax.systems.episodic.analysis import regulation as analysis
from tsar_jax.systems.episodic.analysis import regulation_figures as figures
from tsar_jax.systems.episodic.analysis import regulation_passes as passes
from tsar_jax.systems.episodic.analysis import regulation_record as records
from tsar_jax.systems.episodic.analysis.regulation_report import record_figures, record_lines
from tsar_jax.systems.episodic.targets import check_domain, load_target, normaliser
from tsar_jax.systems.episodic.trained import load_state
from tsar_jax.systems.episodic.transfer import TransferConfig, check_target, fresh_output
from tsar_jax.systems.episodic.transfer_files import Transfer, find_transfer
from tsar_jax.systems.episodic.tsar import TsarConfig, effective_config, make_network, make_system
from tsar_jax.systems.episodic.tsar_presets import EXPERIMENT
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import (
    check_writable,
    make_folder,
    read_run,
    write_arrays_atomically,
    write_atomically,
)

RATE = 1e-3
"""Learning rate of a run that has no transfer: the largest of the published grid."""


WHEN = {
    "learning": ("while it learns", "while it learns"),
    "frozen": ("as meta-trained", "once it has learned all classes"),
}
"""When the regulation in a figure was collected, by mode; and in that of the output layer."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to analyse, and on which images."""

    runs: tuple[Path, ...]
    """Folders of meta-trained runs of model tsar; those of one initial bias are pooled."""
    out: Path
    """Folder to write to."""
    mode: Literal["learning", "frozen"] = "learning"
    """Whose regulation is collected: of the network while it learns the images (learning, as
    released), or of the network as it was meta-trained (frozen)."""
    target: str = "mini_imagenet"
    """The new domain: mini_imagenet, cifar100, omniglot, or the name of images of your own."""
    classes: int = 100
    """Number of its classes, in random order, at least 3."""
    learn: int = 30
    """Images of a class, one after another."""
    layer: Literal["block_0", "block_1", "block_2", "head"] = "block_2"
    """Layer whose regulation is shown: block_2 is the third convolution, C3."""
    rate: float | None = None
    """Learning rate of Adam. None: the one that the run's transfer to the target found (by
    tsar_transfer or tsar_bias_sweep, random images); 1e-3 for a run that has none."""
    head_bias: float = -1.7
    """Bias that the fresh output head of the regulator begins with."""
    step: int | None = None
    """Checkpoint to analyse (default: the newest)."""
    seed: int = 0
    """Seed of the classes and images drawn, and of the fresh output layer, in [0, 2**32)."""

    def __post_init__(self) -> None:
        """Raises UserError for impossible values."""
        check_domain(self.target)
        if not self.runs:
            raise UserError("--runs names no run: name at least one meta-trained run's folder.")
        check_positive(self, "learn")
        if self.classes < 3:
            raise UserError(
                f"classes must be at least 3, for one to have a class before and after it, "
                f"but is {self.classes}."
            )
        if self.rate is not None:
            check_rates(self, "rate")
        check_seed(self)


class Source(NamedTuple):
    """A run to analyse: its transfer, if it has one, and the learning rate."""

    path: Path
    name: str
    config: TsarConfig
    transferred: Transfer | None
    rate: float


class Analysed(NamedTuple):
    """A run's raw arrays, and the checkpoint's step they are of."""

    source: Source
    step: int
    record: records.Record


class Group(NamedTuple):
    """The runs of one initial bias: their arrays pooled, the best of them, and best by what."""

    runs: list[Analysed]
    pooled: records.Record
    best: Analysed
    best_by: str


def main() -> None:
    settings = cli.parse_settings(Arguments, experiment="tsar_analyse", description=__doc__)
    sources = read_sources(settings)
    check_writable(settings.out, "--out")
    images, _ = load_target(settings.target, sources[0].config.pixels)
    protocol = TransferConfig(
        classes=settings.classes, learn=settings.learn, test=False, head_bias=settings.head_bias
    )
    check_target(protocol, images.shape, min(source.config.outputs for source in sources))
    draw_key, fresh_key = jax.random.split(jax.random.key(settings.seed))
    shown = passes.draw_images(images, protocol, draw_key)
    analysed = [analyse(source, settings, shown, fresh_key) for source in sources]
    groups = pool_by_bias(analysed)
    write_and_show(settings, groups)


def read_sources(settings: Arguments) -> list[Source]:
    """The runs to analyse. Raises UserError for one named twice, or that cannot be pooled."""
    paths = settings.runs
    short = len({path.name for path in paths}) == len(paths)
    sources: list[Source] = []
    for number, path in enumerate(paths):
        if path.resolve() in {source.path.resolve() for source in sources}:
            raise UserError(f"--runs names {path} twice: name each run once.")
        config = read_tsar(path, settings.layer)
        transferred = find_transfer(path, config, settings.target, settings.step)
        rate = settings.rate or (transferred.result.rate if transferred else RATE)
        name = path.name if short else f"{path.name}_{number}"
        sources.append(Source(path, name, config, transferred, rate))
    first: dict[float, Source] = {}
    for source in sources:
        check_poolable(first.setdefault(source.config.initial_bias, source), source)
    return sources


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
            f"{path} does not regulate layer {shown(layer)}: choose from "
            f"{', '.join(config.regulated)}{nearest_hint(layer, config.regulated)}."
        )
    return config


def check_poolable(first: Source, other: Source) -> None:
    """Raises UserError for two runs of one initial bias whose networks differ."""
    configs = effective_config(first.config), effective_config(other.config)
    for field in ("channels", "regulator_channels", "outputs", "regulated", "pixels"):
        values = tuple(getattr(config, field) for config in configs)
        if values[0] != values[1]:
            raise UserError(
                f"{first.path} and {other.path} have one initial bias, but cannot be pooled: "
                f"{field} is {values[0]} and {values[1]}; analyse them one by one."
            )


def load_params(path: Path, config: TsarConfig, step: int | None) -> tuple[Any, int]:
    """A run's parameters and their step, without the optimiser's state."""
    state, found = load_state(path, make_system(config), step)
    return state.params, found


def analyse(
    source: Source,
    settings: Arguments,
    shown: passes.Shown,
    fresh_key: jax.Array,
) -> Analysed:
    """Collect one run's regulation, and say what is being done."""
    # The heads began elsewhere, but are read from the checkpoint: one program serves all biases.
    network = make_network(dataclasses.replace(source.config, initial_bias=0.0))
    assert isinstance(network, TSAR)
    params, step = load_params(source.path, source.config, settings.step)
    layers = tuple(network.regulated)
    passes.check_countable(params, layers, shown)
    normalise = normaliser(settings.target, source.config.pixels)
    plan = passes.Plan(network, normalise, layers, settings.layer, settings.classes)
    say_compiling(source.name)
    fresh = jax.jit(fresh_output, static_argnums=(0, 2))(
        network, params, settings.head_bias, fresh_key
    )
    subject = passes.Subject(fresh, jnp.float32(source.rate))
    images = f"{shown.labels.size:,} images at learning rate {source.rate:g}"
    if settings.mode == "learning":
        say(source, f"learns {images}, twice")
        found, output, chosen = passes.collect_twice(passes.collect_learning, plan, subject, shown)
    else:
        say(source, f"sees {shown.labels.size:,} images, twice")
        meta_trained = subject._replace(params=params)
        found, output, chosen = passes.collect_twice(
            passes.collect_frozen, plan, meta_trained, shown
        )
        if "head" in layers:
            say(source, f"learns {images}, for its output layer")
            output = passes.learn_and_look(plan, subject, shown)
    say(source, "counts pairs of synapses")
    record = records.make_record(plan, found, chosen, output, lambda line: say(source, line))
    return Analysed(source, step, record)


def say(source: Source, what: str) -> None:
    """Print a line of progress on a run."""
    print(f"{source.name}: {what} ...", flush=True)


def pool_by_bias(analysed: list[Analysed]) -> dict[float, Group]:
    """Runs by initial bias, the highest first."""
    by_bias: dict[float, list[Analysed]] = {}
    for run in sorted(analysed, key=lambda run: -run.source.config.initial_bias):
        by_bias.setdefault(run.source.config.initial_bias, []).append(run)
    groups = {}
    for bias, runs in by_bias.items():
        scores, best_by = accuracies(runs)
        best = runs[int(np.argmax(scores))]
        groups[bias] = Group(runs, records.pool([run.record for run in runs]), best, best_by)
    return groups


def accuracies(runs: list[Analysed]) -> tuple[list[float], str]:
    """By what the best of several runs is told, and what it is: see this file's beginning."""
    made = [run.source.transferred for run in runs]
    transfers = [transfer for transfer in made if transfer is not None]
    alike = all(transfer.protocol == transfers[0].protocol for transfer in transfers)
    if len(transfers) == len(runs) and alike:
        found = [float(np.mean(transfer.result.test)) for transfer in transfers]
        return found, "accuracy at the end of its transfer"
    scores = []
    for run in runs:
        rows = [
            row["accuracy"]
            for row in read_rows(run.source.path)
            if row["split"] == "train"
            and "accuracy" in row
            and 0.9 * run.step < row["step"] <= run.step
        ]
        scores.append(float(np.mean(rows)) if rows else float("-inf"))
    return scores, "query accuracy over the last tenth of its meta-training"


def draw(settings: Arguments, groups: dict[float, Group]) -> dict[str, Figure]:
    """All figures by their path below OUT/figures."""
    when, output_when = WHEN[settings.mode]
    layer, several = settings.layer, any(len(group.runs) > 1 for group in groups.values())

    def histograms(best: bool) -> dict[str, np.ndarray]:
        rows = {}
        for bias, group in groups.items():
            record = group.best.record if best else group.pooled
            name = group.best.source.name if best or len(group.runs) == 1 else count_runs(group)
            rows[f"initial bias {bias:g} ({name})"] = record[f"regulation_{layer}"]
        return rows

    made = {"regulation": figures.regulation_figure(histograms(False), layer, when)}
    if several:
        title = f"{when}, the best run of each initial bias"
        made["regulation_best"] = figures.regulation_figure(histograms(True), layer, title)
    for bias, group in groups.items():
        folder = f"initial_bias_{bias:g}"
        best, alone = group.best.source.name, len(group.runs) == 1
        shown = [(folder, group.pooled, best if alone else count_runs(group))]
        if not alone:
            shown.append((f"{folder}/best", group.best.record, f"{best}, the best"))
        for place, record, runs in shown:
            whose = f"initial bias {bias:g}, {runs}"
            titles = f"{when}, {whose}", f"{output_when}, {whose}"
            for name, figure in record_figures(record, *titles, layer).items():
                made[f"{place}/{name}"] = figure
    return made


def count_runs(group: Group) -> str:
    """How many runs a group pools."""
    return "1 run" if len(group.runs) == 1 else f"{len(group.runs)} runs pooled"


def report(settings: Arguments, groups: dict[float, Group]) -> dict[str, Any]:
    """What analysis.json holds: settings, numbers by run, and pooled by initial bias."""
    return {
        "settings": settings_to_json(settings),
        "thresholds": analysis.THRESHOLDS,
        "runs": {
            run.source.name: {
                "step": run.step,
                "initial_bias": run.source.config.initial_bias,
                "rate": run.source.rate,
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


def write_and_show(settings: Arguments, groups: dict[float, Group]) -> None:
    """Write numbers, arrays and figures; print a line per analysis and where they are."""
    made, out = report(settings, groups), settings.out
    path, arrays = out / "analysis.json", out / "arrays"
    make_folder(arrays, "--out")
    for bias, group in groups.items():
        for run in group.runs:
            write_arrays_atomically(arrays / f"{run.source.name}.npz", run.record)
        if len(group.runs) > 1:
            write_arrays_atomically(arrays / f"initial_bias_{bias:g}.npz", group.pooled)
        print(f"initial bias {bias:g}, {count_runs(group)}:")
        if len(group.runs) > 1:
            print(f"  best: {group.best.source.name}, by {group.best_by}")
        for line in record_lines(made["initial_biases"][f"{bias:g}"], settings.layer):
            print(f"  {line}")
    write_atomically(path, json.dumps(without_nan(made), indent=2, allow_nan=False) + "\n")
    for name, figure in draw(settings, groups).items():
        save_figure(figure, out / "figures" / name)
    print(f"results: {path}")
    print(f"arrays:  {arrays}")
    print(f"figures: {out / 'figures'}")


if __name__ == "__main__":
    cli.run_main(main)
