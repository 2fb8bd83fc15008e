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
from typing import Any, Literal

import jax

from tsar_jax import cli
from tsar_jax.errors import UserError, check_positive, check_rates, check_seed
from tsar_jax.plots.style import save_figure
from tsar_jax.systems.episodic.analysis.regulation_passes import draw_image_stream
from tsar_jax.systems.episodic.analysis.regulation_report import (
    count_runs,
    draw_figures,
    make_report,
    record_lines,
    without_nan,
)
from tsar_jax.systems.episodic.analysis.regulation_runs import (
    Group,
    Mode,
    RegulationConfig,
    Source,
    analyse,
    check_poolable,
    pool_by_bias,
    read_tsar,
)
from tsar_jax.systems.episodic.targets import check_domain, load_target
from tsar_jax.systems.episodic.transfer import TransferConfig, check_target
from tsar_jax.systems.episodic.transfer_files import find_transfer
from tsar_jax.training.run import (
    check_writable,
    make_folder,
    write_arrays_atomically,
    write_atomically,
)

RATE = 1e-3
"""Learning rate of a run that has no transfer: the largest of the published grid."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The runs to analyse, and the images."""

    runs: tuple[Path, ...]
    """Folders of meta-trained runs of model tsar; those of one initial bias are pooled."""
    out: Path
    """Folder to write to."""
    mode: Mode = "learning"
    """Network whose regulation is collected: while it learns the images (learning, as released), or
    as it was meta-trained (frozen)."""
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
        """Raise UserError for impossible values."""
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


def main() -> None:
    settings = cli.parse_settings(Arguments, experiment="tsar_analyse", description=__doc__)
    sources = read_sources(settings)
    check_writable(settings.out, "--out")
    images, _ = load_target(settings.target, sources[0].config.pixels)
    transfer = TransferConfig(
        classes=settings.classes, learn=settings.learn, test=False, head_bias=settings.head_bias
    )
    check_target(transfer, images.shape, min(source.config.outputs for source in sources))
    draw_key, output_key = jax.random.split(jax.random.key(settings.seed))
    stream = draw_image_stream(images, transfer, draw_key)
    config = RegulationConfig(
        settings.mode, settings.layer, settings.target, transfer, settings.step
    )
    analysed = [analyse(source, config, stream, output_key) for source in sources]
    write_and_show(settings, pool_by_bias(analysed))


def read_sources(settings: Arguments) -> list[Source]:
    """Return the runs to analyse.

    Raises:
        UserError: one is named twice, or cannot be analysed or pooled.
    """
    paths = settings.runs
    short = len({path.name for path in paths}) == len(paths)
    sources: list[Source] = []
    for number, path in enumerate(paths):
        if path.resolve() in {source.path.resolve() for source in sources}:
            raise UserError(f"--runs names {path} twice: name each run once.")
        config = read_tsar(path, settings.layer)
        transfer = find_transfer(path, config, settings.target, settings.step)
        learning_rate = settings.rate or (transfer.result.rate if transfer else RATE)
        name = path.name if short else f"{path.name}_{number}"
        sources.append(Source(path, name, config, transfer, learning_rate))
    first: dict[float, Source] = {}
    for source in sources:
        check_poolable(first.setdefault(source.config.initial_bias, source), source)
    return sources


def settings_to_json(settings: Arguments) -> dict[str, Any]:
    """Return the settings as JSON values, runs by the names of their folders."""
    values = dataclasses.asdict(settings)
    del values["out"]
    return {**values, "runs": [path.name for path in settings.runs]}


def write_and_show(settings: Arguments, groups: dict[float, Group]) -> None:
    """Write numbers, arrays and figures; print a line per analysis and where they are."""
    made = {"settings": settings_to_json(settings), **make_report(groups)}
    out = settings.out
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
    for name, figure in draw_figures(groups, settings.mode, settings.layer).items():
        save_figure(figure, out / "figures" / name)
    print(f"results: {path}")
    print(f"arrays:  {arrays}")
    print(f"figures: {out / 'figures'}")


if __name__ == "__main__":
    cli.run_main(main)
