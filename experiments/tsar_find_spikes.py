"""Find the images of a new domain that a meta-trained TSAR regulates most: its spikes.

Examples:
  tsar-jax run tsar_find_spikes --run runs/NAME                      mini-ImageNet
  tsar-jax run tsar_find_spikes --run runs/NAME --target cifar100
  tsar-jax run tsar_find_spikes --run runs/NAME --show 6 --each 4    more examples in the figure

An image's mean regulation is the mean gate of the third convolution. Prints a summary and writes
RUN/spikes-TARGET.csv, a line per image with its rank in its class (1: the highest), and
RUN/figures/spikes-TARGET.png and .pdf: a histogram, and images of the highest and the lowest mean
regulation of some classes. tsar_transfer --condition spikes learns such images.
"""

import csv
import dataclasses
import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax import cli
from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError, check_limits, check_positive
from tsar_jax.systems.episodic.image_regulation import mean_regulation, regulates_third
from tsar_jax.systems.episodic.targets import check_domain, load_classes
from tsar_jax.systems.episodic.trained import load_state
from tsar_jax.systems.episodic.tsar import TsarConfig, make_network, make_system
from tsar_jax.systems.episodic.tsar_presets import EXPERIMENT
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, read_run, write_atomically


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The run and the images to look at."""

    run: Path
    """Folder of a meta-trained run of model tsar."""
    target: str = "mini_imagenet"
    """The new domain: mini_imagenet, cifar100, omniglot, or the name of images of your own."""
    step: int | None = None
    """Checkpoint to load (default: the newest)."""
    show: int = 4
    """Classes in the figure, evenly spaced among those of the domain."""
    each: int = 3
    """Images of highest and of lowest mean regulation of each class."""

    def __post_init__(self) -> None:
        """Raise UserError for impossible values."""
        check_domain(self.target)
        check_positive(self, "show", "each")


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="tsar_find_spikes", description=__doc__)
    config = read_run(arguments.run, EXPERIMENT, TsarConfig)
    network = make_network(config)
    if not regulates_third(network):
        raise UserError(
            f"The third convolution of {arguments.run} (model {config.model}) has no regulation: "
            "take a run of model tsar that regulates block_2."
        )
    check_writable(arguments.run)
    domain, normalise = load_classes(arguments.target, config.pixels)
    classes, per_class = domain.images.shape[:2]
    check_limits(
        ("show", arguments.show, classes, "classes in the data"),
        ("each", arguments.each, per_class, "images of a class"),
    )
    state, step = load_state(arguments.run, make_system(config), arguments.step)
    print(f"Regulating {classes * per_class} images of {arguments.target} ...", flush=True)
    say_compiling()
    measure = jax.jit(mean_regulation, static_argnums=(0, 3))
    regulation = np.asarray(
        measure(network, state.params, jnp.asarray(domain.images), normalise), np.float64
    )
    write_and_show(arguments, domain, regulation, step)


def ranks_in_class(regulation: np.ndarray) -> np.ndarray:
    """Return the rank of each image in its class, 1 for the highest: [classes, per_class]."""
    return 1 + np.argsort(np.argsort(-regulation, axis=1, kind="stable"), axis=1)


def spikes_csv(names: tuple[str, ...], regulation: np.ndarray) -> str:
    """Return a line per image of mean regulation [classes, per_class], in the order of the data."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["class", "image", "mean_regulation", "rank_in_class"])
    ranks = ranks_in_class(regulation)
    for name, values, places in zip(names, regulation, ranks, strict=True):
        for image, (value, place) in enumerate(zip(values, places, strict=True)):
            writer.writerow([name, image, f"{value:.6g}", place])
    return file.getvalue()


def write_and_show(
    arguments: Arguments, domain: ImageSet, regulation: np.ndarray, step: int
) -> None:
    """Write the table and the figure of mean regulation [classes, per_class]; print a summary."""
    from tsar_jax.systems.episodic.transfer_figure import Examples, spikes_figure

    name = f"spikes-{arguments.target}"
    table = arguments.run / f"{name}.csv"
    write_atomically(table, spikes_csv(domain.names, regulation))
    ranked = np.argsort(-regulation, axis=1, kind="stable")
    rows = []
    for index in np.linspace(0, len(regulation) - 1, arguments.show).round().astype(int):
        high, low = ranked[index, : arguments.each], ranked[index, -arguments.each :]
        images, values = domain.images[index], regulation[index]
        rows.append(
            Examples(domain.names[index], images[high], values[high], images[low], values[low])
        )
    figures = spikes_figure(regulation, rows, arguments.run / "figures" / name)
    highest, lowest = regulation.max(), regulation.min()
    print(f"mean regulation of the third convolution after {step} meta-training steps:")
    print(f"  mean             {regulation.mean():.4g}")
    print(f"  99th percentile  {np.percentile(regulation, 99):.4g}")
    print(f"  highest, lowest  {highest:.4g}, {lowest:.4g}: {highest / lowest:.3g} times")
    print(f"table:  {table}")
    print(f"figure: {figures[0]}")


if __name__ == "__main__":
    cli.run_main(main)
