"""Meta-test a trained network: learn unseen characters one by one, then recognise them.

Examples:
  tsar-jax run anml_meta_test --run runs/NAME
  tsar-jax run anml_meta_test --run runs/NAME --baselines        beside untrained networks
  tsar-jax run anml_meta_test --run runs/NAME --plastic all      everything learns
  tsar-jax run anml_meta_test --run runs/NAME --iid              the oracle
  tsar-jax run anml_meta_test --run runs/NAME --class-order data  alphabet after alphabet
  tsar-jax run anml_meta_test --run runs/NAME --preset paper     as published: 10 to 600 classes

Prints a table and writes RUN/meta_test-NAME.json and RUN/figures/meta_test-NAME.png and .pdf.
"""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax

from experiments._meta_trained import check_plastic, join_names, load_omniglot, load_state, read_run
from experiments.anml_meta_train import EXPERIMENT
from tsar_jax import cli
from tsar_jax.data.episodes import Pixels
from tsar_jax.networks import Network, init_params
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network, make_system
from tsar_jax.systems.episodic.protocol import PUBLISHED_RATES, MetaTestConfig, Result, meta_test
from tsar_jax.systems.episodic.results import Conditions, results_to_json, table
from tsar_jax.terminal import print_tables
from tsar_jax.training.config import config_to_json
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, write_atomically

TRAINED, RANDOM, SCRATCH = "meta-trained", "random features", "from scratch"


@dataclasses.dataclass(frozen=True)
class Arguments(MetaTestConfig):
    """A meta-test of one run."""

    step: int | None = None
    """Checkpoint to test (default: the newest)."""
    baselines: bool = False
    """Also test the same network untrained: its last layer learning, and everything learning."""
    name: str | None = None
    """Name of the files written; default: what learns, and what is not as in preset cpu."""


PRESETS = {
    "cpu": cli.Preset(Arguments(), "10, 50 and 100 classes, a grid of rates for narrow networks"),
    "smoke": cli.Preset(
        Arguments(classes=(3, 5), runs=2, rates=(1e-3, 1e-2), draws=1), "3 and 5 classes, 2 runs"
    ),
    "paper": cli.Preset(
        Arguments(
            classes=(10, 50, 75, 100, 200, 300, 400, 500, 600),
            runs=50,
            rates=PUBLISHED_RATES,
            draws=10,
            ties="smallest",
            class_order="data",
        ),
        "10 to 600 classes, 10 draws x 14 rates, 50 runs; a GPU is advisable",
    ),
}


def load_trained(path: Path, step: int | None) -> tuple[AnmlConfig, Network, Any, int]:
    """Config, network and parameters of a run's checkpoint, and its step."""
    config = read_run(path, EXPERIMENT, AnmlConfig)
    state, step = load_state(path, make_system(config), step)
    return config, make_network(config), state.params, step


def run_conditions(
    network: Network,
    params: Any,
    images: jax.Array,
    config: MetaTestConfig,
    *,
    pixels: Pixels,
    baselines: bool,
) -> dict[str, list[Result]]:
    """The run's network, and beside it, if asked for, the two baselines, each announced."""
    untrained = init_params(network, jax.random.fold_in(jax.random.key(config.seed), 1))
    from_scratch = dataclasses.replace(config, plastic=("all",), reset=True)
    conditions = {TRAINED: (params, config)}
    if config.scratch:
        conditions = {"untrained": (untrained, config)}
    if baselines:
        conditions |= {RANDOM: (untrained, config), SCRATCH: (untrained, from_scratch)}
    results = {}
    for name, (theta, settings) in conditions.items():

        def report(row: Result, name: str = name, settings: MetaTestConfig = settings) -> None:
            accuracy = sum(row.test) / len(row.test)
            print(
                f"{name}, {row.classes} classes: test accuracy {accuracy:.3f} "
                f"at learning rate {row.rate:g}",
                flush=True,
            )
            if row.classes != settings.classes[-1]:
                say_compiling(name)

        say_compiling(name)
        results[name] = meta_test(network, theta, images, settings, report, pixels=pixels)
    return results


def default_name(arguments: Arguments) -> str:
    """Return the name of a meta-test by what it measures: "head", "all-iid", "head-data-order".

    Settings that say how exactly it is measured (rates, draws, runs, seed) are left out, and
    numbers of classes, which the results name.
    """
    usual = PRESETS["cpu"].config
    parts = [join_names(arguments.plastic)]
    parts += [name for name in ("iid", "reset", "scratch") if getattr(arguments, name)]
    if arguments.epochs != usual.epochs:
        parts.append(f"{arguments.epochs}epochs")
    if arguments.class_order != usual.class_order:
        parts.append(f"{arguments.class_order}-order")
    if arguments.ties != usual.ties:
        parts.append(f"{arguments.ties}-rate")
    parts += [
        f"{name}{getattr(arguments, name)}"
        for name in ("learn", "population", "step")
        if getattr(arguments, name) != getattr(usual, name)
    ]
    return "-".join(parts)


def write_and_show(
    path: Path,
    name: str,
    conditions: Conditions,
    settings: dict[str, Any],
    title: str,
    band: str,
    published: Collection[str] = (),
) -> None:
    """Write JSON and figure below `path`; print the table and where they are.

    published: models whose published accuracies the figure has too.
    """
    from tsar_jax.systems.episodic.meta_test_figure import meta_test_figure

    write_atomically(path / f"{name}.json", results_to_json(conditions, settings))
    figures = meta_test_figure(conditions, path / "figures" / name, band, published)
    print_tables(table(conditions, title), width=120)
    print(f"results: {path / name}.json")
    print(f"figure:  {figures[0]}")


def main() -> None:
    arguments, path, preset = cli.parse_for_run(
        Arguments, PRESETS, experiment="anml_meta_test", description=__doc__ or ""
    )
    config = read_run(path, EXPERIMENT, AnmlConfig)
    check_plastic(make_network(config), arguments.plastic)
    config, network, params, step = load_trained(path, arguments.step)
    check_writable(path)
    images = load_omniglot()["evaluation"]
    conditions = run_conditions(
        network, params, images, arguments, pixels=config.pixels, baselines=arguments.baselines
    )
    trained = "untrained" if arguments.scratch else f"after {step} meta-training steps"
    settings = {
        "model": config.model,
        "pixels": config.pixels,
        "seed": config.seed,
        "step": step,
        "preset": preset,
        "meta_test": config_to_json(arguments),
    }
    write_and_show(
        path,
        f"meta_test-{arguments.name or default_name(arguments)}",
        conditions,
        settings,
        f"{config.model} {trained}: {arguments.runs} runs",
        f"{arguments.runs} runs",
    )


if __name__ == "__main__":
    cli.run_main(main)
