"""Learn a stream of tasks without forgetting: SYNERgy, or any of its peers, several seeds at once.

Examples:
  tsar-jax run continual_train --preset smoke                   seconds: does it run?
  tsar-jax run continual_train                                  SYNERgy on turning digits
  tsar-jax run continual_train --method er --buffer 200 --seeds 5
  tsar-jax run continual_train --stream seq-cifar10 --width 16  ResNet-18 on images
  tsar-jax run continual_train --settings reg_weight=0.5 penalty_weight=2
  tsar-jax run continual_train --method ewc_on --settings adjust_fisher=true
  tsar-jax run continual_train --stream gcil-cifar100-noise --phase-classes 20 --schedule-seed 7
  tsar-jax run continual_train --validation                     tested on held-out training images
  tsar-jax run continual_train --init runs/NAME                 begin with another run's network
  tsar-jax run continual_train --resume runs/NAME               go on where it was stopped

What is not given is the published best for the method, the stream and the buffer, of SYNERgy's
release where that of CLS-ER has it too (--published clser: the other way round); where nothing is
published, that of the stream, the buffer or the method which is nearest. A line says whose values
they are; they are printed and kept in RUN/config.json. Writes RUN/accuracy.csv (of every model on
every test after every task), RUN/result.json and RUN/figures/accuracy.png and .pdf.
A gcil- stream draws classes alike, or by weights of the suffix -longtail or -noise (the releases'
weight_dist); its average accuracy is, as there, the mean over the cumulative tests of all phases.
Then: tsar-jax run continual_analyse --runs RUN --out FOLDER
"""

import dataclasses

from experiments._continual import Study, lifetimes_of, measured, network_like, prepare
from tsar_jax import cli
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
from tsar_jax.systems.continual.methods import METHODS
from tsar_jax.systems.continual.system import ContinualConfig, make_system
from tsar_jax.training.initial import begin_from
from tsar_jax.training.loop import train
from tsar_jax.training.run import Run

EXPERIMENT = "continual_train"
PAPER = ContinualConfig(stream="seq-cifar10", chunk=100, checkpoint_every=1000)
DIGITS = ContinualConfig(chunk=100, checkpoint_every=1000)

PRESETS = {
    "cpu": cli.Preset(DIGITS, "SYNERgy on rot-mnist, as published; half a minute on two cores"),
    "packaged": cli.Preset(
        dataclasses.replace(DIGITS, stream="rot-emnist"), "the same on digits that come with this"
    ),
    "smoke": cli.Preset(
        dataclasses.replace(
            DIGITS,
            stream="rot-emnist",
            tasks=2,
            buffer=64,
            replay=32,
            batch=32,
            hidden=(20,),
        ),
        "two tasks of packaged digits, a tiny network",
    ),
    "paper": cli.Preset(PAPER, "SYNERgy on seq-cifar10 with the full ResNet-18; wants a GPU"),
}


def main() -> None:
    description = (__doc__ or "") + f"\nMethods: {', '.join(METHODS)}."
    config, run = cli.parse(
        ContinualConfig, PRESETS, experiment=EXPERIMENT, description=description
    )
    study = prepare(config)
    print(f"data: {study.source}")
    learn(study, dataclasses.replace(run, config=study.config))


def learn(study: Study, run: Run) -> Outcome:
    """Trains, and writes what was measured."""
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
        lambda network: lifetimes_of(study, network),
        seed=True,
    )
    trained = train(system, study.life.stream.data, config, run, first_state=begin)
    outcome = measured(study, trained.state)
    write_outcome(run.path, outcome)
    for name, values in measures(outcome).items():
        text = mean_and_deviation(values, limits=measure_limits(name))
        print(f"{measure_title(name, outcome.cumulative)}: {text} %")
    print(f"accuracies: {run.path / ACCURACY}")
    from tsar_jax.systems.continual.figures import accuracy_figure

    figure, _ = accuracy_figure(outcome, run.figures / "accuracy")
    print(f"figure:     {figure}")
    return outcome


def chosen(config: ContinualConfig) -> str:
    """The hyper-parameters of a run, in a line."""
    general = (f"{name}={getattr(config, name):g}" for name in ("lr", "batch", "replay", "epochs"))
    return ", ".join([*general, *config.settings])


if __name__ == "__main__":
    cli.run_main(main)
