"""Look into continual learners: recency bias, calibration, flatness, stability and plasticity.

Examples:
  tsar-jax run continual_analyse --runs runs/NAME --out results/one
  tsar-jax run continual_analyse --runs T/runs/er-500 T/runs/synergy-500 --out results/analysis

RUN: finished runs of continual_train on one stream. Writes OUT/analysis.json and OUT/figures:
tasks (which tasks the network thinks of, where tasks differ in their classes; else how accurate it
is on each), calibration (reliability diagrams), noise (accuracy with noise on all weights) and
trade_off (stability against plasticity).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax import cli
from tsar_jax.errors import UserError, check_positive
from tsar_jax.systems.continual.experiment import PreparedExperiment, prepare
from tsar_jax.systems.continual.measures import Outcome, read_outcome
from tsar_jax.systems.continual.presets import EXPERIMENT
from tsar_jax.systems.continual.probe_figures import (
    Analysis,
    calibration_figure,
    noise_figure,
    tasks_figure,
    trade_off_figure,
)
from tsar_jax.systems.continual.probes import (
    accuracy_under_noise,
    predict,
    reliability,
    trade_off,
)
from tsar_jax.systems.continual.system import ContinualConfig, RunState, make_system, reported_model
from tsar_jax.training.checkpoints import load_seeds
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, make_folder, read_run, write_atomically


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The runs to analyse."""

    runs: tuple[Path, ...]
    """Folders of finished runs of continual_train."""
    out: Path
    """Folder to write to."""
    deviations: tuple[float, ...] = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1)
    """Standard deviations of the noise on the weights."""
    draws: int = 5
    """Draws of that noise."""
    bins: int = 10
    """Bins of confidence in the reliability diagrams."""

    def __post_init__(self) -> None:
        check_positive(self, "draws", "bins")


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="continual_analyse", description=__doc__)
    if not arguments.runs:
        raise UserError("--runs names no run: name at least one finished run's folder.")
    check_writable(arguments.out, "--out")
    outcomes = [read_outcome(path) for path in arguments.runs]
    streams = sorted({outcome.stream for outcome in outcomes})
    if len(streams) > 1:
        raise UserError(f"The runs are of different streams ({', '.join(streams)}): name one's.")
    analyses = [
        analyse(path, outcome, arguments)
        for path, outcome in zip(arguments.runs, outcomes, strict=True)
    ]
    content = {analysis.label: analysis.to_json() for analysis in analyses}
    make_folder(arguments.out, "--out")
    write_atomically(arguments.out / "analysis.json", json.dumps(content, indent=1) + "\n")
    figures = arguments.out / "figures"
    written = [
        tasks_figure(analyses, figures / "tasks"),
        calibration_figure(analyses, figures / "calibration"),
        noise_figure(analyses, np.asarray(arguments.deviations), figures / "noise"),
    ]
    if all(analysis.trade_off for analysis in analyses):
        written.append(trade_off_figure(analyses, figures / "trade_off"))
    for figure, _ in written:
        print(f"figure: {figure}")


def analyse(path: Path, outcome: Outcome, arguments: Arguments) -> Analysis:
    """Return the analysis of one run's reported model."""
    prepared, run_states, data = load(path)
    experiment = prepared.experiment

    def probe(run_state: RunState, data: Any) -> Any:
        model = reported_model(experiment, run_state.learner)
        key = jax.random.key(0)
        noisy = accuracy_under_noise(
            experiment,
            run_state,
            model,
            data,
            jnp.asarray(arguments.deviations),
            key,
            arguments.draws,
        )
        return predict(experiment, run_state, model, data), noisy

    say_compiling(path.name)
    predictions, noisy = jax.jit(
        lambda run_states, data: jax.lax.map(lambda one: probe(one, data), run_states)
    )(run_states, data)
    has_trade_off = outcome.accuracy.shape[1] > 1 and not outcome.cumulative
    # Nobody knows how an imported network did right after each task.
    has_trade_off &= bool(np.isfinite(np.diagonal(outcome.matrix(), axis1=1, axis2=2)).all())
    label = outcome.method + (f", buffer {outcome.buffer}" if outcome.buffer else "")
    found = Analysis(
        label=label,
        by_class=outcome.kind == "class" and not outcome.cumulative,
        task_probability=np.asarray(predictions.task_probability).mean((0, 1)),
        task_accuracy=outcome.matrix()[:, -1].mean(0),
        reliability=reliability(jax.device_get(predictions), arguments.bins),
        noise=np.asarray(noisy).mean(-1),
        trade_off=dict(trade_off(outcome)) if has_trade_off else {},
    )
    print(f"{label}: expected calibration error {100 * found.reliability.error:.2f} %")
    return found


def load(path: Path) -> tuple[PreparedExperiment, RunState, Any]:
    """Return a run's study, the lifetimes of its seeds and its stream's data on the device."""
    prepared = prepare(read_run(path, EXPERIMENT, ContinualConfig))
    data = jax.device_put(prepared.experiment.stream.data)
    like = jax.eval_shape(make_system(prepared.config, prepared.experiment).init, jax.random.key(0))
    run_states, _, step = load_seeds(path, like=like)
    if step != prepared.config.steps:
        raise UserError(f"{path} has not come to its end: resume it with continual_train first.")
    return prepared, run_states, data


if __name__ == "__main__":
    cli.run_main(main)
