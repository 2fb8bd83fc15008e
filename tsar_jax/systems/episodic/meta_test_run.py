"""A meta-test of a run: its network beside the baselines, and the files that hold the results."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax

from tsar_jax.data.episodes import Pixels
from tsar_jax.networks import Network, init_params
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network, make_system
from tsar_jax.systems.episodic.anml_presets import EXPERIMENT
from tsar_jax.systems.episodic.meta_test import MetaTestConfig, Result, run_meta_test
from tsar_jax.systems.episodic.meta_test_results import (
    RANDOM,
    SCRATCH,
    TRAINED,
    Conditions,
    results_to_json,
    table,
)
from tsar_jax.systems.episodic.trained import load_state
from tsar_jax.terminal import print_tables
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import read_run, write_atomically


def load_trained(
    path: Path, step: int | None, number: int = 0
) -> tuple[AnmlConfig, Network, Any, int]:
    """Return config, network and parameters of a run's checkpoint, and the checkpoint's step.

    Args:
        path: folder of the run.
        step: step of the checkpoint. None: the newest usable one.
        number: seed of a run of several, counted from 0.

    Raises:
        UserError: the folder holds no run of anml_meta_train, or no such checkpoint or seed.
    """
    config = read_run(path, EXPERIMENT, AnmlConfig)
    state, step = load_state(path, make_system(config), step, number)
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
    """Run the meta-test of a network and, if asked for, of two baselines; print each result.

    Args:
        network: the run's network.
        params: its meta-trained parameters.
        images: images of the unseen classes, uint8 [classes, per_class, H, W].
        config: settings of the meta-test.
        pixels: the scale that the network was trained with.
        baselines: whether untrained networks are tested as well.

    Returns:
        The results of each condition, one for each number of classes.
    """
    untrained = init_params(network, jax.random.fold_in(jax.random.key(config.seed), 1))
    from_scratch = dataclasses.replace(config, plastic=("all",), reset=True)
    conditions = {TRAINED: (params, config)}
    if config.scratch:
        conditions = {"untrained": (untrained, config)}
    if baselines:
        conditions |= {RANDOM: (untrained, config), SCRATCH: (untrained, from_scratch)}
    results = {}
    for name, (initial, settings) in conditions.items():

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
        results[name] = run_meta_test(network, initial, images, settings, report, pixels=pixels)
    return results


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

    Args:
        name: name of the files, without suffix.
        title: the table's.
        band: what the figure's band is taken over, such as "10 runs".
        published: models whose published accuracies the figure has too.
    """
    from tsar_jax.systems.episodic.meta_test_figure import meta_test_figure

    write_atomically(path / f"{name}.json", results_to_json(conditions, settings))
    figures = meta_test_figure(conditions, path / "figures" / name, band, published)
    print_tables(table(conditions, title), width=120)
    print(f"results: {path / name}.json")
    print(f"figure:  {figures[0]}")
