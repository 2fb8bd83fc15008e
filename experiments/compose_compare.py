"""Compare compositions on classes that meta-training did not see: who learns and keeps most.

Example, after runs of compose on characters that differ in learner, modulation or meta-optimiser:
  tsar-jax run compose_compare --runs runs/compose-* --classes 50 200 --out results/compose

Runs of the same learner, modulation and meta-optimiser that differ in their seed are repetitions,
and so are the seeds of a run. All have the same lifetimes: unseen classes learned one after
another, and scored on other images of them at the end. Writes OUT/lifetimes.csv (a row for each
lifetime), OUT/accuracy.md, what each choice buys in OUT/gains.md, and OUT/figures/accuracy.png,
with a PDF.
"""

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax import cli
from tsar_jax.devices import split_cpu
from tsar_jax.errors import UserError, check_positive, check_seed
from tsar_jax.modules import check_allowed
from tsar_jax.systems.compose.comparison import (
    COLUMNS,
    Choices,
    Scores,
    accuracy_table,
    check_comparable,
    choices_of,
    gains_table,
    lifetime_rows,
)
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.presets import EXPERIMENT
from tsar_jax.systems.compose.streams import ImageStream, find_stream
from tsar_jax.systems.compose.system import evaluate_lifetimes, make_system
from tsar_jax.training.checkpoints import load_seeds
from tsar_jax.training.run import check_writable, make_folder, read_run, write_atomically


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The runs to compare, and the lifetimes that they live."""

    runs: tuple[Path, ...]
    """Folders of finished runs of compose on characters or episodes."""
    out: Path
    """Folder to write to."""
    classes: tuple[int, ...] = (50, 200)
    """Numbers of classes of a lifetime."""
    lifetimes: int = 10
    """Lifetimes of each seed of a run with each number of classes, the same for all."""
    seed: int = 1
    """Seed of the lifetimes, in [0, 2**32)."""
    modules: tuple[str, ...] = ()
    """Python modules to import first; a run that names another is refused."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("--runs names no run: name at least one finished run of compose.")
        if len(set(self.runs)) < len(self.runs):
            raise UserError("--runs names a folder twice: name each once.")
        if not self.classes or min(self.classes) < 1:
            raise UserError(f"--classes must be numbers of at least 1, but are {self.classes}.")
        check_positive(self, "lifetimes")
        check_seed(self)


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="compose_compare", description=__doc__)
    check_writable(arguments.out, "--out")
    configs = {path: read_run(path, EXPERIMENT, ComposeConfig) for path in arguments.runs}
    for path, config in configs.items():
        check_allowed(config.modules, arguments.modules, path)
    check_comparable(configs, arguments.classes)
    split_cpu()
    trained = {path: read_thetas(path, config) for path, config in configs.items()}
    data = load_images(configs, arguments.classes)
    keys = jax.random.split(jax.random.key(arguments.seed), arguments.lifetimes)
    accuracies: dict[Choices, dict[int, list[np.ndarray]]] = {}
    rows = []
    for path, (thetas, numbers) in trained.items():
        choices = choices_of(configs[path])
        seeds = [configs[path].seed + number for number in numbers]
        for size in arguments.classes:
            accuracy = of_seeds(configs[path], size, thetas, data, keys)
            accuracies.setdefault(choices, {}).setdefault(size, []).append(accuracy.mean(1))
            rows += lifetime_rows(choices, path.name, size, seeds, accuracy)
            print(f"{path.name}, {size} classes: {accuracy.mean():.3f}", flush=True)
    scores = {
        choices: {size: np.concatenate(runs) for size, runs in by_size.items()}
        for choices, by_size in accuracies.items()
    }
    write_results(arguments.out, scores, rows, 1 / next(iter(configs.values())).outputs)


def read_thetas(path: Path, config: ComposeConfig) -> tuple[Any, np.ndarray]:
    """Return what a run has meta-learned, of each seed that is not lost, and their numbers.

    Raises:
        UserError: the run is not finished, or all of its seeds are lost.
    """
    system = make_system(config, find_stream(config))
    states, lost, step = load_seeds(path, like=jax.eval_shape(system.init, jax.random.key(0)))
    if step < config.steps:
        raise UserError(
            f"{path} is at step {step} of {config.steps}: finish it with --resume {path}, or leave "
            "it out."
        )
    numbers = np.setdiff1d(np.arange(len(jax.tree.leaves(states)[0])), lost)
    if not numbers.size:
        raise UserError(f"All seeds of {path} are lost: leave it out.")
    return jax.tree.map(lambda leaf: leaf[numbers], states.theta), numbers


def load_images(configs: dict[Path, ComposeConfig], sizes: tuple[int, ...]) -> Any:
    """Return the images that all runs are evaluated on, on the device.

    Raises:
        UserError: there are too few classes for a lifetime.
    """
    images: Any = None
    for config in configs.values():
        for size in sizes:
            stream = find_stream(with_classes(config, size))
            assert isinstance(stream, ImageStream)
            if images is None:  # the stream is the same for all
                images, _ = stream.load()
            stream.check(with_classes(config, size), images)
    return {"test": jnp.asarray(images["test"])}


def with_classes(config: ComposeConfig, size: int) -> ComposeConfig:
    """Return a config whose evaluations have `size` classes."""
    return dataclasses.replace(config, eval_classes=size)


def of_seeds(
    config: ComposeConfig, size: int, thetas: Any, data: Any, keys: jax.Array
) -> np.ndarray:
    """Return accuracies [seeds, lifetimes] of thetas [seeds, ...], with `size` classes."""
    tested = with_classes(config, size)
    stream = find_stream(tested)

    def evaluate(thetas: Any, data: Any) -> jax.Array:
        def of_seed(theta: Any) -> jax.Array:
            return evaluate_lifetimes(tested, stream, theta, data, keys)[1]["accuracy"]

        return lax.map(of_seed, thetas)

    return np.asarray(jax.jit(evaluate)(thetas, data))


def write_results(out: Path, scores: Scores, rows: list[list[str]], chance: float) -> None:
    """Write tables and figure, and print the tables.

    Args:
        out: folder.
        scores: of compositions.
        rows: of all lifetimes.
        chance: accuracy of guessing.
    """
    make_folder(out, "--out")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    write_atomically(out / "lifetimes.csv", text.getvalue())
    for name, table in (("accuracy", accuracy_table(scores)), ("gains", gains_table(scores))):
        write_atomically(out / f"{name}.md", table)
        print(table)
    from tsar_jax.systems.compose.figures import accuracy_figure

    print(f"figure: {accuracy_figure(scores, chance, out / 'figures' / 'accuracy')}")


if __name__ == "__main__":
    cli.run_main(main)
