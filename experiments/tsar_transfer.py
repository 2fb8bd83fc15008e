"""Transfer a meta-trained network to a domain it has never seen, one image after another.

Examples:
  tsar-jax run tsar_transfer --run runs/NAME                          mini-ImageNet
  tsar-jax run tsar_transfer --run runs/NAME --target cifar100
  tsar-jax run tsar_transfer --run runs/NAME --preset omniglot        600 classes, 15 + 5 images
  tsar-jax run tsar_transfer --run runs/NAME --condition spikes       images of high regulation
  tsar-jax run tsar_transfer --run runs/NAME --baselines              beside the same untrained
  tsar-jax run tsar_transfer --run runs/NAME --no-test                retention of learned images
  tsar-jax run tsar_transfer --run runs/NAME --iid                    the oracle: shuffled images
  tsar-jax run tsar_transfer --run runs/NAME --reset                  all that learns begins anew
  tsar-jax run tsar_transfer --run runs/NAME --plastic all            nothing frozen
  tsar-jax run tsar_transfer --run runs/NAME --rln 10                 the first 10 layers frozen

Prints a table and writes RUN/transfer-NAME.json and RUN/figures/transfer-NAME.png and .pdf: the
accuracy on each class right after it was learned, and at the end.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._meta_trained import check_plastic, join_names, load_state, read_run
from experiments.tsar_meta_train import EXPERIMENT
from tsar_jax import cli
from tsar_jax.data import load, own
from tsar_jax.data.episodes import Pixels, omniglot_scaling, scale_omniglot
from tsar_jax.data.normalise import normalise_cifar100, normalise_imagenet
from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError, check_known, doing_without
from tsar_jax.networks import init_params
from tsar_jax.systems.episodic.protocol import Result
from tsar_jax.systems.episodic.results import results_to_json, table
from tsar_jax.systems.episodic.transfer import TransferConfig, transfer
from tsar_jax.systems.episodic.tsar import (
    TRANSFERRED,
    TsarConfig,
    learns_as_published,
    make_network,
    make_system,
    plastic_after,
)
from tsar_jax.terminal import print_tables
from tsar_jax.training.config import config_to_json, earlier
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, write_atomically

Normalise = Callable[[jax.Array], jax.Array]

TRAINED, SCRATCH = "meta-trained", "from scratch"

# Splits of a data set whose classes are learned.
TARGETS: dict[str, tuple[str, ...]] = {
    "mini_imagenet": ("train", "test", "val"),
    "cifar100": ("train",),
    "omniglot": ("evaluation",),
}


def check_domain(name: str) -> None:
    """Raises UserError for what is neither a domain nor the name of images of the user's own."""
    check_known("target", name, [*TARGETS, *own.own_names()])


@dataclasses.dataclass(frozen=True)
class Arguments(TransferConfig):
    """A transfer of one run."""

    target: str = "mini_imagenet"
    """The new domain: mini_imagenet, cifar100, omniglot, or the name of images of your own."""
    baselines: bool = False
    """Also transfer the same network untrained (from scratch)."""
    plastic: tuple[str, ...] | None = dataclasses.field(default=None, metadata=earlier(None))
    """Parameters that learn, by name (all: nothing is frozen). None: as published, all but the
    encoder of TSAR, all but the neuromodulatory network's trunk of ANML."""
    rln: int | None = dataclasses.field(default=None, metadata=earlier(None))
    """The releases' way to name what learns: the first RLN layers stay frozen, a convolution, a
    norm and a dense layer counting as one each (0: nothing is frozen). None: as published, 6."""
    step: int | None = None
    """Checkpoint to transfer (default: the newest)."""
    name: str | None = None
    """Name of the files written; default: target and condition, and what is not as in preset cpu,
    such as 600x15 for classes and images, or retention where the learned images are scored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_domain(self.target)
        if self.plastic is not None and not self.plastic:
            raise UserError("plastic names nothing: name what learns, or all.")
        if self.plastic is not None and self.rln is not None:
            raise UserError("plastic and rln both say what learns: leave one of them out.")


CPU = TransferConfig(test=True, rates=(3e-3, 1e-3, 3e-4), draws=1, fresh_draws=False, runs=1)
USUAL = {
    "mini_imagenet": CPU,
    "cifar100": CPU,
    "omniglot": dataclasses.replace(CPU, learn=10),  # half of a class
}
"""Transfers whose files are named after target and condition alone."""

SMOKE = dataclasses.replace(CPU, classes=3, learn=2, rates=(1e-3, 1e-2))

PRESETS = {
    "cpu": cli.Preset(
        Arguments(**vars(CPU)),
        "100 classes, 3 learning rates on one draw, then one run, scored on held-out images",
    ),
    "omniglot": cli.Preset(
        Arguments(
            **vars(dataclasses.replace(CPU, classes=600, learn=15, score=5)), target="omniglot"
        ),
        "as cpu: 600 classes of Omniglot, 15 images of each learned, the 5 others scored",
    ),
    "smoke": cli.Preset(Arguments(**vars(SMOKE)), "3 classes, 1 run"),
    "paper": cli.Preset(
        Arguments(),
        "as published: 10 learning rates once, each on a fresh draw, then 49 runs, scored on the "
        "learned images as by the documented command; --test for held-out ones",
    ),
    "paper-omniglot": cli.Preset(
        Arguments(target="omniglot", classes=600, learn=15, score=5, test=True),
        "the same search and runs with 600 classes of Omniglot, 15 + 5 images of each",
    ),
}


def normaliser(target: str, pixels: Pixels) -> Normalise:
    """Return how images of a domain are normalised.

    pixels: the scale of Omniglot's that the network was meta-trained with.
    """
    if target == "omniglot":
        return omniglot_scaling(pixels)
    if target not in TARGETS:
        return own_scaling(pixels)
    return {"mini_imagenet": normalise_imagenet, "cifar100": normalise_cifar100}[target]


@functools.cache
def own_scaling(pixels: Pixels) -> Normalise:
    """Return how images of a user's own are normalised, the same function each time.

    Colour is taken for photographs, by ImageNet's statistics, and grey for drawings like those that
    the network was meta-trained with.
    """

    def normalise(images: jax.Array) -> jax.Array:
        colour = images.shape[-1] == 3
        return normalise_imagenet(images) if colour else scale_omniglot(images, pixels)

    return normalise


def load_target(name: str, pixels: Pixels) -> tuple[jax.Array, Normalise]:
    """Images uint8 [classes, per_class, H, W (, 3)] of a domain, and their `normaliser`."""
    classes, normalise = load_classes(name, pixels)
    return jnp.asarray(classes.images), normalise


def load_classes(name: str, pixels: Pixels) -> tuple[ImageSet, Normalise]:
    """The classes of a domain with their names, on the host, and their `normaliser`."""
    with doing_without("--target omniglot needs no data to be prepared"):
        loaded = load(name).splits
    if name not in TARGETS:
        classes = own.all_of_each(name, loaded)
        return classes, normaliser(name, pixels)
    sets = [loaded[split] for split in TARGETS[name]]
    images = np.concatenate([s.images for s in sets])
    classes = ImageSet(images, tuple(name for s in sets for name in s.names))
    return classes, normaliser(name, pixels)


def main() -> None:
    arguments, path, preset = cli.parse_for_run(
        Arguments, PRESETS, experiment="tsar_transfer", description=__doc__ or ""
    )
    config = read_run(path, EXPERIMENT, TsarConfig)
    plastic = names_of_plastic(arguments, config)
    check_plastic(make_network(config), plastic)
    file = f"transfer-{arguments.name or default_name(arguments, config)}"
    check_writable(path)
    images, normalise = load_target(arguments.target, config.pixels)
    network = make_network(config)
    state, step = load_state(path, make_system(config), arguments.step)
    conditions: dict[str, Any] = {TRAINED: state.params}
    if arguments.baselines:
        key = jax.random.fold_in(jax.random.key(arguments.seed), 1)
        conditions[SCRATCH] = init_params(network, key)
    settings = TransferConfig(
        **{f.name: getattr(arguments, f.name) for f in dataclasses.fields(TransferConfig)}
    )
    results: dict[str, list[Result]] = {}
    right_after: dict[str, np.ndarray] = {}
    for name, params in conditions.items():
        print(
            f"{name}: searching {len(settings.rates)} learning rates in {settings.draws} draws, "
            f"then {settings.runs} runs, of {settings.classes} x {settings.learn} images each, "
            f"scored on {'held-out' if settings.test else 'the learned'} images ...",
            flush=True,
        )
        say_compiling(name)
        result, soon = transfer(network, params, plastic, images, normalise, settings)
        results[name], right_after[name] = [result], soon
        print(
            f"{name}: accuracy {np.mean(result.test):.3f} after all classes, {soon.mean():.3f} "
            f"right after each, at learning rate {result.rate:g}",
            flush=True,
        )
    network_settings = {"model": config.model, "step": step, "plastic": plastic, "preset": preset}
    write_and_show(path, file, arguments, results, right_after, network_settings)


def names_of_plastic(arguments: Arguments, config: TsarConfig) -> tuple[str, ...]:
    """Return the names of what learns, as plastic or rln say, or as published."""
    if arguments.rln is not None:
        return plastic_after(config, arguments.rln)
    return TRANSFERRED[config.model] if arguments.plastic is None else arguments.plastic


def default_name(arguments: Arguments, config: TsarConfig) -> str:
    """Return the name of a transfer by what it measures, such as omniglot-random-retention.

    Settings that say how exactly it is measured (rates, draws, runs, seed) are left out.

    Raises:
        UserError: no parameter is called as plastic says.
    """
    usual = USUAL.get(arguments.target, CPU)
    parts: list[str] = [arguments.target, arguments.condition]
    if arguments.condition == "mixed" and arguments.mixed != usual.mixed:
        parts[-1] += str(arguments.mixed)
    if (arguments.classes, arguments.learn) != (usual.classes, usual.learn):
        parts.append(f"{arguments.classes}x{arguments.learn}")
    if arguments.score not in (None, arguments.learn):
        parts.append(f"score{arguments.score}")
    if not arguments.test:
        parts.append("retention")
    parts += [option for option in ("iid", "reset") if getattr(arguments, option)]
    if not learns_as_published(config, names_of_plastic(arguments, config)):
        names = arguments.plastic
        parts.append(f"rln{arguments.rln}" if names is None else f"plastic-{join_names(names)}")
    if arguments.head_bias != usual.head_bias:
        parts.append(f"bias{arguments.head_bias:g}")
    if arguments.step is not None:
        parts.append(f"step{arguments.step}")
    return "-".join(parts)


def write_and_show(
    path: Path,
    name: str,
    arguments: Arguments,
    results: dict[str, list[Result]],
    right_after: dict[str, np.ndarray],
    network: dict[str, Any],
) -> None:
    """Write JSON, arrays and figure below `path`; print the table and where they are.

    name: of the files, without suffix. network: what was transferred, from which preset, and the
    names of what learned.
    """
    from tsar_jax.systems.episodic.transfer_figure import forgetting_figure

    settings = {
        **network,
        "transfer": config_to_json(arguments),
        "right_after": {condition: soon.tolist() for condition, soon in right_after.items()},
    }
    write_atomically(path / f"{name}.json", results_to_json(results, settings))
    curves = {
        condition: (right_after[condition], np.asarray(rows[0].per_class))
        for condition, rows in results.items()
    }
    figures = forgetting_figure(curves, path / "figures" / name)
    title = (
        f"{network['model']} after {network['step']} meta-training steps, {arguments.target}: "
        f"{arguments.runs} runs"
    )
    print_tables(table(results, title), width=120)
    print(f"results: {path / name}.json")
    print(f"figure:  {figures[0]}")


if __name__ == "__main__":
    cli.run_main(main)
