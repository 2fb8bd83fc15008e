"""Compare evolved policies on bodies that they have and have not evolved with.

Example, after two runs of hebbian_evolve, one of them of static weights:
  tsar-jax run hebbian_morphologies --runs runs/hebbian runs/static --out results/hebbian

Runs of one kind of policy, by rule and by whether observations are standardised, are repetitions:
their lifetimes count together. Writes OUT/bodies.json, OUT/bodies.md, OUT/figures/bodies.png and
OUT/figures/evolution.png, with PDFs.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tsar_jax import cli
from tsar_jax.devices import split_cpu
from tsar_jax.environments.own import QUADRUPED
from tsar_jax.errors import UserError
from tsar_jax.evaluation.published_results import LEGEND, find_published, joined_figures
from tsar_jax.systems.hebbian.evolved import (
    EpisodeSettings,
    load_evolved,
    make_envs,
    read_config,
    scores_text,
)
from tsar_jax.systems.hebbian.figures import bodies_figure, comparison_figure
from tsar_jax.systems.hebbian.rollouts import traces
from tsar_jax.training.metrics import Row, read_rows
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, make_folder, write_atomically

Fitness = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Arguments(EpisodeSettings):
    """The runs to compare, and the bodies."""

    runs: tuple[Path, ...] = dataclasses.field(kw_only=True)
    """Folders of runs of hebbian_evolve with quadrupeds."""
    out: Path = dataclasses.field(kw_only=True)
    """Folder to write to."""
    bodies: tuple[str, ...] = ("standard", "right_front", "left_front")
    """Bodies of the quadruped, by default the published ones; the last was not evolved with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.runs:
            raise UserError("--runs names no run: name at least one run of hebbian_evolve.")


def main() -> None:
    arguments = cli.parse_settings(
        Arguments, experiment="hebbian_morphologies", description=__doc__
    )
    configs = {path: read_config(path) for path in arguments.runs}
    for path, config in configs.items():
        if config.environment != QUADRUPED:
            raise UserError(f"{path} evolved in {config.environment}, which has but one body.")
    check_writable(arguments.out, "--out")
    split_cpu()
    fitness: dict[str, dict[str, list[np.ndarray]]] = {}
    curves: dict[str, list[list[Row]]] = {}
    for path, config in configs.items():
        worlds = make_envs(
            config, arguments.lifetimes, arguments.bodies, max_episode_steps=arguments.limit
        )
        evolved = load_evolved(path, config, worlds.first, None)
        kind = config.policy.rule + ", standardised" * config.policy.standardised
        curves.setdefault(kind, []).append(read_rows(path))
        say_compiling(path.name)
        lived = traces(evolved.policy, worlds.envs, evolved.genome, arguments.keys)
        for body, trace in zip(worlds.names, lived, strict=True):
            scores = np.sum(trace.rewards, axis=1)
            fitness.setdefault(kind, {}).setdefault(body, []).append(scores)
            print(f"{path.name}, {body}: {scores_text(scores, 1)}", flush=True)
    pooled = {
        kind: {body: np.concatenate(scores) for body, scores in of_bodies.items()}
        for kind, of_bodies in fitness.items()
    }
    write(arguments.out, pooled)
    print(f"figure:  {bodies_figure(pooled, arguments.out / 'figures' / 'bodies')}")
    print(f"figure:  {comparison_figure(curves, arguments.out / 'figures' / 'evolution')}")


def write(out: Path, fitness: Fitness) -> None:
    """Write the fitness of every lifetime as JSON, and means and deviations as a table."""
    content = {
        rule: {body: scores.tolist() for body, scores in of_bodies.items()}
        for rule, of_bodies in fitness.items()
    }
    make_folder(out, "--out")
    write_atomically(out / "bodies.json", json.dumps(content, indent=2) + "\n")
    bodies = list(next(iter(fitness.values())))
    lines = [f"| rule | {' | '.join(bodies)} |", "|---" * (1 + len(bodies)) + "|"]
    for rule, of_bodies in fitness.items():
        cells = [scores_text(scores, 0) for scores in of_bodies.values()]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    published = {rule: published_cells(rule, bodies) for rule in fitness}
    shown = {rule: cells for rule, cells in published.items() if any(cells)}
    lines += [f"| published, {rule} | {' | '.join(cells)} |" for rule, cells in shown.items()]
    if shown:
        lines += ["", f"Published: of another simulator's quadruped. {LEGEND}."]
    write_atomically(out / "bodies.md", "\n".join(lines) + "\n")


def published_cells(rule: str, bodies: Sequence[str]) -> list[str]:
    """Return a rule's published fitness on each body with its source; empty where there is none."""
    return [
        joined_figures(rows) if rows else ""
        for rows in (
            find_published(
                system="hebbian", stream=f"quadruped/{body}", method=rule, measure="fitness"
            )
            for body in bodies
        )
    ]


if __name__ == "__main__":
    cli.run_main(main)
