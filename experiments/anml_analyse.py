"""Analyse a run of anml_meta_train: sparsity, dead units, nearest neighbours, chance.

  tsar-jax run anml_analyse --run RUN

Measures the trained network and the same network before training on unseen classes, prints
them beside the published values, and writes RUN/analysis.json, RUN/figures/gates and
RUN/figures/spaces (PNG and PDF).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from tsar_jax import cli
from tsar_jax.data import load
from tsar_jax.data.episodes import draw_without_replacement
from tsar_jax.errors import UserError, check_rates, check_seed
from tsar_jax.plots.style import save_figure
from tsar_jax.systems.episodic.analysis.representation import published_marks, published_measures
from tsar_jax.systems.episodic.analysis.representation_analysis import (
    LEARN,
    Analysis,
    MetaTests,
    analyse,
)
from tsar_jax.systems.episodic.analysis.representation_figures import (
    gates_figure,
    representations_figure,
)
from tsar_jax.systems.episodic.analysis.representation_report import make_report, make_table
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network, make_system
from tsar_jax.systems.episodic.anml_presets import EXPERIMENT
from tsar_jax.systems.episodic.meta_test_lifetime import LifetimeSpec
from tsar_jax.systems.episodic.trained import load_state
from tsar_jax.terminal import print_tables
from tsar_jax.training.loop import make_keys
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, read_run, write_atomically


@dataclasses.dataclass(frozen=True)
class Settings:
    """The run to analyse, and the amount of data."""

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
    """Learning rate of that meta-test."""
    memory: int = 256
    """Memory in MiB for meta-test runs that are computed at the same time."""
    seed: int = 0
    """Seed of the classes drawn and of the meta-test, in [0, 2**32)."""

    def __post_init__(self) -> None:
        """Raise UserError for impossible values."""
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


def main() -> None:
    """Analyse the run that the command line names."""
    settings = cli.parse_settings(Settings, experiment="anml_analyse", description=__doc__)
    config = read_run(settings.run, EXPERIMENT, AnmlConfig)
    evaluation = load("omniglot").splits["evaluation"]
    spec = meta_test_spec(settings, config, len(evaluation.names))
    system = make_system(config)
    state, step = load_state(settings.run, system, settings.step)
    check_writable(settings.run)
    class_key, run_key = jax.random.split(jax.random.key(settings.seed))
    chosen = np.sort(draw_without_replacement(class_key, len(evaluation.names), settings.classes))
    images = evaluation.images[chosen]
    shown = np.linspace(0, settings.classes - 1, settings.images).round().astype(int)
    keys = jax.random.split(run_key, settings.meta_test_runs)
    tests = MetaTests(spec, keys, settings.rate, settings.memory * 2**20)

    def analysis(params: Any) -> Analysis:
        return analyse(make_network(config), config.pixels, params, images, shown, tests)

    say_compiling("trained")
    trained = analysis(state.params)
    say_compiling("untrained")
    untrained = analysis(jax.jit(system.init)(make_keys(config.seed).init).params)
    report = make_report(
        config, tests, trained, untrained, step=step, classes=settings.classes, seed=settings.seed
    )
    names = [evaluation.names[chosen[index]] for index in shown]
    gates = gates_figure(images[shown, 0], names, trained.examples, trained.means)
    bars = representations_figure(
        {"trained": trained.measures, "untrained": untrained.measures},
        published_measures(config.model),
        settings.classes,
        published_marks(config.model),
    )
    write_and_show(settings.run, report, {"gates": gates, "spaces": bars})


def meta_test_spec(settings: Settings, config: AnmlConfig, available: int) -> LifetimeSpec:
    """Return the spec of a meta-test on the classes drawn.

    available: number of evaluation classes in the data.

    Raises:
        UserError: it asks for more classes than there are.
    """
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
    return LifetimeSpec(classes, population=settings.classes, learn=LEARN)


def write_and_show(path: Path, report: dict[str, Any], figures: dict[str, Figure]) -> None:
    """Write numbers and figures below `path`; print the table and where they are."""
    written = [path / "analysis.json"]
    write_atomically(written[0], json.dumps(report, indent=2) + "\n")
    for name, figure in figures.items():
        written += save_figure(figure, path / "figures" / name)
    print_tables(make_table(report))
    for file in written:
        print(f"wrote {file}")


if __name__ == "__main__":
    cli.run_main(main)
