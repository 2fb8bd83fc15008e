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

from tsar_jax import cli
from tsar_jax.data import omniglot
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network
from tsar_jax.systems.episodic.anml_presets import EXPERIMENT
from tsar_jax.systems.episodic.meta_test import PUBLISHED_RATES, MetaTestConfig
from tsar_jax.systems.episodic.meta_test_run import load_trained, run_conditions, write_and_show
from tsar_jax.systems.episodic.trained import check_plastic, join_names
from tsar_jax.training.config import config_to_json
from tsar_jax.training.preset import Preset
from tsar_jax.training.run import check_writable, read_run


@dataclasses.dataclass(frozen=True)
class Arguments(MetaTestConfig):
    """Settings of a meta-test of one run."""

    step: int | None = None
    """Checkpoint to test (default: the newest)."""
    number: int = 0
    """Seed to test of a run of several, counted from 0."""
    baselines: bool = False
    """Whether the network is tested untrained too, with its last layer and with all of it learning.
    """
    name: str | None = None
    """Name of the files written (default: what learns, and settings other than in preset cpu)."""


PRESETS = {
    "cpu": Preset(Arguments(), "10, 50 and 100 classes, a grid of rates for narrow networks"),
    "smoke": Preset(
        Arguments(classes=(3, 5), runs=2, rates=(1e-3, 1e-2), draws=1), "3 and 5 classes, 2 runs"
    ),
    "paper": Preset(
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


def default_name(arguments: Arguments) -> str:
    """Return the name of a meta-test by what it measures: "head", "all-iid", "head-data-order".

    Settings of precision (rates, draws, runs, seed) are left out, and the numbers of classes, which
    the results name.
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
        for name in ("learn", "population", "step", "number")
        if getattr(arguments, name) != getattr(usual, name)
    ]
    return "-".join(parts)


def main() -> None:
    arguments, path, preset = cli.parse_for_run(
        Arguments, PRESETS, experiment="anml_meta_test", description=__doc__ or ""
    )
    config = read_run(path, EXPERIMENT, AnmlConfig)
    check_plastic(make_network(config), arguments.plastic)
    config, network, params, step = load_trained(path, arguments.step, arguments.number)
    check_writable(path)
    images = omniglot.load_on_device()["evaluation"]
    conditions = run_conditions(
        network, params, images, arguments, pixels=config.pixels, baselines=arguments.baselines
    )
    trained = "untrained" if arguments.scratch else f"after {step} meta-training steps"
    settings = {
        "model": config.model,
        "pixels": config.pixels,
        "seed": config.seed + arguments.number,
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
