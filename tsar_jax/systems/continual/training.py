"""Train a continual learner in a run's folder, and write there what was measured."""

from tsar_jax.devices import split_cpu
from tsar_jax.systems.continual.measures import (
    ACCURACY,
    Outcome,
    mean_and_deviation,
    measure_limits,
    measure_title,
    measures,
    write_outcome,
)
from tsar_jax.systems.continual.study import Study, lifetime_with, measured, network_like
from tsar_jax.systems.continual.system import ContinualConfig, make_system
from tsar_jax.training.initial import begin_from
from tsar_jax.training.loop import train
from tsar_jax.training.run import Run


def train_study(study: Study, run: Run) -> Outcome:
    """Train from the run's newest checkpoint, if any, to the end; print and write the result.

    Writes accuracy.csv, result.json and figures/accuracy to the run's folder.

    Args:
        study: what is trained.
        run: where, with the study's config.

    Returns:
        What was measured.

    Raises:
        UserError: the method cannot learn the stream, or what the run begins with does not fit.
    """
    config = study.config
    if config.seeds > 1:
        split_cpu()
    if study.values_of:
        print(f"hyper-parameters not given: {study.values_of}")
    print(f"{config.method} on {config.stream}, buffer {config.buffer}: {chosen(config)}")
    system = make_system(config, study.life)
    begin = begin_from(
        config.init,
        "learner/net",
        lambda: network_like(study),
        run,
        lambda network, key: lifetime_with(study, network, key),
    )
    trained = train(system, study.life.stream.data, config, run, first_state=begin)
    outcome = measured(study, trained.state)
    write_outcome(run.path, outcome)
    report(outcome, run)
    return outcome


def chosen(config: ContinualConfig) -> str:
    """Return the hyper-parameters of a run, in a line."""
    general = (f"{name}={getattr(config, name):g}" for name in ("lr", "batch", "replay", "epochs"))
    return ", ".join([*general, *config.settings])


def report(outcome: Outcome, run: Run) -> None:
    """Print a run's measures, and draw its accuracies."""
    for name, values in measures(outcome).items():
        text = mean_and_deviation(values, limits=measure_limits(name))
        print(f"{measure_title(name, outcome.cumulative)}: {text} %")
    print(f"accuracies: {run.path / ACCURACY}")
    from tsar_jax.systems.continual.figures import accuracy_figure

    figure, _ = accuracy_figure(outcome, run.figures / "accuracy")
    print(f"figure:     {figure}")
