"""Analyse a run of anml_meta_train: sparsity, dead units, nearest neighbours, chance.

  tsar-jax run anml_analyse --run RUN

Measures the trained network and the same network before training on unseen classes, prints
them beside the published values, and writes RUN/analysis.json, RUN/figures/gates and
RUN/figures/spaces (PNG and PDF).
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.box
from rich.table import Table

from tsar_jax import cli
from tsar_jax.data import load
from tsar_jax.data.episodes import Pixels, draw_without_replacement
from tsar_jax.errors import UserError, check_rates, check_seed
from tsar_jax.evaluation.published_results import LEGEND
from tsar_jax.networks import Network
from tsar_jax.plasticity.masks import mask
from tsar_jax.plots.style import save_figure
from tsar_jax.systems.episodic.analysis import representation
from tsar_jax.systems.episodic.analysis.representation import (
    DEAD_UNITS,
    NEAREST_NEIGHBOUR,
    SPARSITY,
    published_marks,
    published_measures,
)
from tsar_jax.systems.episodic.analysis.representation_figures import (
    gates_figure,
    space_title,
    spaces_figure,
)
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network, make_system
from tsar_jax.systems.episodic.anml_presets import EXPERIMENT
from tsar_jax.systems.episodic.meta_test import Protocol, run_many
from tsar_jax.systems.episodic.system import State
from tsar_jax.systems.episodic.trained import load_state
from tsar_jax.terminal import print_tables
from tsar_jax.training.loop import make_keys
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, read_run, write_atomically

LEARN = 15
TITLES = {
    SPARSITY: "active units",
    DEAD_UNITS: "dead units",
    NEAREST_NEIGHBOUR: "5-nearest neighbours",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to analyse, and on how much."""

    run: Path
    """Folder of the run."""
    step: int | None = None
    """Checkpoint to load; by default the newest."""
    classes: int = 600
    """Unseen classes to measure on, drawn at random."""
    images: int = 5
    """Images in the figure of gates, each of another class."""
    meta_test_classes: int | None = None
    """Classes learned to count those above chance; by default 100, or as many as there are."""
    meta_test_runs: int = 3
    """Runs of that meta-test; each re-draws its classes' order and the output layer."""
    rate: float = 1e-3
    """Its learning rate."""
    memory: int = 256
    """MiB for meta-test runs that go at the same time."""
    seed: int = 0
    """Of the classes drawn and of the meta-test: 0 to 2**32 - 1."""

    def __post_init__(self) -> None:
        """Raises UserError for impossible values."""
        least = {"classes": 1, "images": 1, "meta_test_runs": 1, "memory": 1}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise UserError(f"{name} must be at least {minimum}, but is {getattr(self, name)}.")
        if self.meta_test_classes is not None and self.meta_test_classes < 1:
            raise UserError(
                f"meta_test_classes must be at least 1, but is {self.meta_test_classes}."
            )
        check_seed(self)
        check_rates(self, "rate")
        if self.images > self.classes:
            raise UserError(f"images is {self.images}, but there are only {self.classes} classes.")


class Analysis(NamedTuple):
    """One network's numbers, and what its figure needs.

    measures: space -> measure -> share. meta_test: mean test accuracy and share of classes
    above chance. shown: space -> units [images, F]. means: space -> mean activation [F].
    """

    measures: dict[str, dict[str, float]]
    meta_test: dict[str, float]
    shown: dict[str, np.ndarray]
    means: dict[str, np.ndarray]


def main() -> None:
    """Analyses the run that the command line names."""
    settings = cli.parse_settings(Settings, experiment="anml_analyse", description=__doc__)
    config = read_run(settings.run, EXPERIMENT, AnmlConfig)
    evaluation = load("omniglot").splits["evaluation"]
    protocol = meta_test_protocol(settings, config, len(evaluation.names))
    system = make_system(config)
    state, step = load_state(settings.run, make_system(config), settings.step)
    check_writable(settings.run)
    class_key, run_key = jax.random.split(jax.random.key(settings.seed))
    chosen = np.sort(draw_without_replacement(class_key, len(evaluation.names), settings.classes))
    images = evaluation.images[chosen]
    shown = np.linspace(0, settings.classes - 1, settings.images).round().astype(int)

    def analysis(state: State) -> Analysis:
        network = make_network(config)
        return analyse(
            network, config.pixels, state.params, images, shown, protocol, settings, run_key
        )

    say_compiling("trained")
    trained = analysis(state)
    say_compiling("untrained")
    untrained = analysis(jax.jit(system.init)(make_keys(config.seed).init))
    report = make_report(config, settings, protocol, step, trained, untrained)
    write_atomically(settings.run / "analysis.json", json.dumps(report, indent=2) + "\n")
    names = [evaluation.names[chosen[index]] for index in shown]
    gates = gates_figure(images[shown, 0], names, trained.shown, trained.means)
    bars = spaces_figure(
        {"trained": trained.measures, "untrained": untrained.measures},
        published_measures(config.model),
        settings.classes,
        published_marks(config.model),
    )
    written = [settings.run / "analysis.json"]
    written += save_figure(gates, settings.run / "figures" / "gates")
    written += save_figure(bars, settings.run / "figures" / "spaces")
    print_tables(make_table(report))
    for path in written:
        print(f"wrote {path}")


def meta_test_protocol(settings: Settings, config: AnmlConfig, available: int) -> Protocol:
    """The meta-test on the classes drawn; UserError for more classes than there are."""
    if settings.classes > available:
        raise UserError(
            f"classes is {settings.classes}, but there are only {available} evaluation classes "
            "in the data."
        )
    limit = min(settings.classes, config.outputs)
    classes = settings.meta_test_classes or min(100, limit)
    if classes > limit:
        what = "classes drawn" if limit == settings.classes else "outputs"
        raise UserError(f"meta_test_classes is {classes}, but there are only {limit} {what}.")
    return Protocol(classes, population=settings.classes, learn=LEARN)


def analyse(
    network: Network,
    pixels: Pixels,
    params: Any,
    images: np.ndarray,
    shown: np.ndarray,
    protocol: Protocol,
    settings: Settings,
    key: jax.Array,
) -> Analysis:
    """Return every number for one network.

    images: uint8 [classes, per_class, H, W]; pixels: the scale it was trained with.
    """
    active = jax.device_get(representation.activity(network, pixels, params, images))
    features = representation.features(network, pixels, params, images)
    known = [name for name in representation.SPACES if name in features]
    names = [*known, *(name for name in features if name not in known)]
    measures = {
        name: {
            SPARSITY: float(active[name].sparsity),
            DEAD_UNITS: float(active[name].dead_units),
            NEAREST_NEIGHBOUR: float(representation.held_out_accuracy(features[name], learn=LEARN)),
        }
        for name in names
    }
    keys = jax.random.split(key, settings.meta_test_runs)
    result = meta_test(
        network,
        protocol,
        settings.memory * 2**20,
        params,
        features["features"],
        keys,
        settings.rate,
    )
    return Analysis(
        measures,
        {
            "test_accuracy": float(result["test"].mean()),
            "classes_above_chance": float(
                representation.classes_above_chance(result["per_class"], protocol.classes)
            ),
        },
        {name: np.asarray(features[name][shown, 0]) for name in names},
        {name: active[name].mean for name in names},
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def meta_test(
    network: Network,
    protocol: Protocol,
    memory: int,
    params: Any,
    features: jax.Array,
    keys: jax.Array,
    rate: float,
) -> dict[str, jax.Array]:
    """Meta-test runs in which the output layer alone learns, on [classes, per_class, F]."""
    plastic = mask(params, ("head",))
    signals = features.reshape(-1, features.shape[-1])
    rates = jnp.full(keys.shape, rate)
    per_class = features.shape[1]
    return run_many(
        network, params, plastic, signals, protocol, per_class, keys, rates, memory=memory
    )


def make_report(
    config: AnmlConfig,
    settings: Settings,
    protocol: Protocol,
    step: int,
    trained: Analysis,
    untrained: Analysis,
) -> dict[str, Any]:
    """What analysis.json holds."""

    def numbers(analysis: Analysis) -> dict[str, Any]:
        return {"spaces": analysis.measures, "meta_test": analysis.meta_test}

    return {
        "model": config.model,
        "pixels": config.pixels,
        "step": step,
        "classes": settings.classes,
        "threshold": representation.THRESHOLD,
        "neighbours": representation.NEIGHBOURS,
        "meta_test": {
            "classes": protocol.classes,
            "runs": settings.meta_test_runs,
            "rate": settings.rate,
        },
        "seed": settings.seed,
        "trained": numbers(trained),
        "untrained": numbers(untrained),
        "published": published_measures(config.model),
    }


def make_table(report: dict[str, Any]) -> Table:
    """The report for a terminal, in %."""
    test = report["meta_test"]
    marks = published_marks(report["model"])
    of_published = f" Sources of what is published: {marks}. {LEGEND}." if marks else ""
    table = Table(
        box=rich.box.SIMPLE,
        pad_edge=False,
        title=f"{report['model']}, step {report['step']}: % on {report['classes']} unseen classes",
        caption=f"Meta-test: {test['runs']} runs of {test['classes']} classes, "
        f"the output layer learning at rate {test['rate']:g}." + of_published,
    )
    table.add_column("space")
    table.add_column("measure")
    for name in ("trained", "untrained", "published"):
        table.add_column(name, justify="right")
    trained, untrained = report["trained"], report["untrained"]
    for space, measures in trained["spaces"].items():
        title = space_title(space, list(trained["spaces"]))
        for measure, value in measures.items():
            values = (
                value,
                untrained["spaces"][space][measure],
                report["published"]["trained"].get(space, {}).get(measure),
            )
            table.add_row(title, TITLES[measure], *map(percent, values))
            title = ""
        table.add_section()
    title = "Meta-test"
    for name, value in trained["meta_test"].items():
        values = (value, untrained["meta_test"][name], None)
        table.add_row(title, name.replace("_", " "), *map(percent, values))
        title = ""
    return table


def percent(share: float | None) -> str:
    """A share as a number of percent; a dash for none."""
    return "-" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    cli.run_main(main)
