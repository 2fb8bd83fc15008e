"""Meta-train any learner, under any modulation, on any stream, by any meta-optimiser.

Examples:
  tsar-jax run compose --preset smoke                         seconds: does it run?
  tsar-jax run compose                                        SGD under ANML's gate on characters
  tsar-jax run compose --learner rule --modulation layers --meta-optimiser openai_es
  tsar-jax run compose --learner hebbian --stream cart_pole --meta-optimiser openai_es
  tsar-jax run compose --preset hebbian-cart-pole             the one of hebbian_evolve
  tsar-jax run compose --learner replay --stream permuted --encoder pixels --hidden 64
  tsar-jax run compose --preset anml --channels 64            ANML, a published system, narrower
  tsar-jax run compose --preset synergy                       initial weights for SYNERgy
  tsar-jax run compose --meta-learned rates coefficients      only these, weights drawn anew
  tsar-jax run compose --modules mine --learner my_learner    one of your own, see the documentation
  tsar-jax run compose --resume runs/NAME                     go on where it was stopped

Writes RUN/metrics.csv: loss, and accuracy or return, in meta-training and in evaluations, which
have other classes (of permuted digits other images, of emnist other draws, of an environment other
episodes).
"""

from typing import Any

import jax.numpy as jnp

from tsar_jax import cli
from tsar_jax.devices import split_cpu
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.presets import EXPERIMENT, PRESETS
from tsar_jax.systems.compose.streams import ImageStream, find_stream
from tsar_jax.systems.compose.system import make_system
from tsar_jax.training.loop import train


def main() -> None:
    config, run = cli.parse(
        ComposeConfig, PRESETS, experiment=EXPERIMENT, description=__doc__ or ""
    )
    if config.seeds > 1 or config.lifetimes > 1 or config.meta_optimiser != "gradient":
        split_cpu()  # one lifetime is faster on all cores together
    stream = find_stream(config)
    system = make_system(config, stream)
    data: Any = ()
    if isinstance(stream, ImageStream):
        images, source = stream.load()
        stream.check(config, images)
        print(f"data: {source}")
        data = {split: jnp.asarray(array) for split, array in images.items()}
    train(system, data, config, run)
    print(f"{run.path}: meta-trained for {config.steps} steps.")


if __name__ == "__main__":
    cli.run_main(main)
