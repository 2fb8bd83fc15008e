"""Train a continual learner in a run's folder, and write its measurements there."""

from tsar_jax.devices import split_cpu
from tsar_jax.plasticity.methods.settings import given_settings
from tsar_jax.systems.continual.experiment import (
    PreparedExperiment,
    init_from_network,
    measure_outcome,
    network_like,
)
from tsar_jax.systems.continual.measures import (
    ACCURACY,
    Outcome,
    mean_and_deviation,
    measure_limits,
    measure_title,
    measures,
    write_outcome,
)
from tsar_jax.systems.continual.system import ContinualConfig, make_system
from tsar_jax.training.initial import init_from_run
from tsar_jax.training.loop import train
from tsar_jax.training.run import Run


def train_experiment(prepared: PreparedExperiment, run: Run) -> Outcome:
    """Train from the run's newest checkpoint, if any, to the end; print and write the result.

    Writes accuracy.csv, result.json and figures/accuracy to the run's folder.

    Args:
        prepared: the experiment.
        run: its folder, with the experiment's config.

    Returns:
        The measurements.

    Raises:
        UserError: the method cannot learn the stream, or the initial network does not fit.
    """
    config = prepared.config
    if config.seeds > 1:
        split_cpu()
    if prepared.values_of:
        print(f"hyper-parameters not given: {prepared.values_of}")
    print(f"{config.method} on {config.stream}, buffer {config.buffer}: {chosen(config)}")
    system = make_system(config, prepared.experiment)
    first_state = init_from_run(
        config.init,
        "learner/net",
        lambda: network_like(prepared),
        run,
        lambda network, key: init_from_network(prepared, network, key),
    )
    trained = train(system, prepared.experiment.stream.data, config, run, first_state=first_state)
    outcome = measure_outcome(prepared, trained.state)
    write_outcome(run.path, outcome)
    report(outcome, run)
    return outcome


def chosen(config: ContinualConfig) -> str:
    """Return the hyper-parameters of a run, in a line."""
    values = {name: getattr(config, name) for name in ("lr", "batch", "replay", "epochs")}
    values |= given_settings(config.settings)
    return ", ".join(f"{name}={value}" for name, value in values.items())


def report(outcome: Outcome, run: Run) -> None:
    """Print a run's measures, and draw its accuracies."""
    for name, values in measures(outcome).items():
        text = mean_and_deviation(values, limits=measure_limits(name))
        print(f"{measure_title(name, outcome.cumulative)}: {text} %")
    print(f"accuracies: {run.path / ACCURACY}")
    from tsar_jax.systems.continual.figures import accuracy_figure

    figure, _ = accuracy_figure(outcome, run.figures / "accuracy")
    print(f"figure:     {figure}")
