"""Learn a stream of tasks without forgetting: SYNERgy, or any of its peers, several seeds at once.

Examples:
  tsar-jax run continual_train --preset smoke                   seconds: does it run?
  tsar-jax run continual_train                                  SYNERgy on turning digits
  tsar-jax run continual_train --method er --buffer 200 --seeds 5
  tsar-jax run continual_train --stream seq-cifar10 --width 16  ResNet-18 on images
  tsar-jax run continual_train --method.reg-weight 0.5 --method.penalty-weight 2
  tsar-jax run continual_train --method derpp --help            its hyper-parameters, explained
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

from tsar_jax import cli
from tsar_jax.plasticity.methods import METHODS
from tsar_jax.systems.continual.experiment import prepare
from tsar_jax.systems.continual.presets import EXPERIMENT, PRESETS
from tsar_jax.systems.continual.system import ContinualConfig
from tsar_jax.systems.continual.training import train_experiment


def main() -> None:
    description = (__doc__ or "") + f"\nMethods: {', '.join(METHODS)}."
    config, run = cli.parse(
        ContinualConfig, PRESETS, experiment=EXPERIMENT, description=description
    )
    prepared = prepare(config)
    print(f"data: {prepared.source}")
    train_experiment(prepared, dataclasses.replace(run, config=prepared.config))


if __name__ == "__main__":
    cli.run_main(main)
