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
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tsar_jax import cli
from tsar_jax.networks import init_params
from tsar_jax.systems.episodic.meta_test import Result
from tsar_jax.systems.episodic.meta_test_results import SCRATCH, TRAINED, results_to_json, table
from tsar_jax.systems.episodic.targets import load_target
from tsar_jax.systems.episodic.trained import check_plastic, load_state
from tsar_jax.systems.episodic.transfer import TransferConfig, transfer
from tsar_jax.systems.episodic.transfer_arguments import (
    CPU,
    SMOKE,
    TransferArguments,
    default_name,
    names_of_plastic,
)
from tsar_jax.systems.episodic.tsar import TsarConfig, make_network, make_system
from tsar_jax.systems.episodic.tsar_presets import EXPERIMENT
from tsar_jax.terminal import print_tables
from tsar_jax.training.config import config_to_json
from tsar_jax.training.preset import Preset
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, read_run, write_atomically

PRESETS = {
    "cpu": Preset(
        TransferArguments(**vars(CPU)),
        "100 classes, 3 learning rates on one draw, then one run, scored on held-out images",
    ),
    "omniglot": Preset(
        TransferArguments(
            **vars(dataclasses.replace(CPU, classes=600, learn=15, score=5)), target="omniglot"
        ),
        "as cpu: 600 classes of Omniglot, 15 images of each learned, the 5 others scored",
    ),
    "smoke": Preset(TransferArguments(**vars(SMOKE)), "3 classes, 1 run"),
    "paper": Preset(
        TransferArguments(),
        "as published: 10 learning rates once, each on a fresh draw, then 49 runs, scored on the "
        "learned images as by the documented command; --test for held-out ones",
    ),
    "paper-omniglot": Preset(
        TransferArguments(target="omniglot", classes=600, learn=15, score=5, test=True),
        "the same search and runs with 600 classes of Omniglot, 15 + 5 images of each",
    ),
}


def main() -> None:
    arguments, path, preset = cli.parse_for_run(
        TransferArguments, PRESETS, experiment="tsar_transfer", description=__doc__ or ""
    )
    config = read_run(path, EXPERIMENT, TsarConfig)
    plastic = names_of_plastic(arguments, config)
    check_plastic(make_network(config), plastic)
    file = f"transfer-{arguments.name or default_name(arguments, config)}"
    check_writable(path)
    images, normalise = load_target(arguments.target, config.pixels)
    network = make_network(config)
    state, step = load_state(path, make_system(config), arguments.step, arguments.number)
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


def write_and_show(
    path: Path,
    name: str,
    arguments: TransferArguments,
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
