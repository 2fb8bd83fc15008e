"""Evolve Hebbian rules, a set for every synapse, that train a random network within its lifetime.

Examples:
  tsar-jax run hebbian_evolve --preset smoke                seconds: does it run?
  tsar-jax run hebbian_evolve                               a quadruped on a laptop's cores; needs
                                                            the extra "environments"
  tsar-jax run hebbian_evolve --preset cart-pole            compiled: also pendulum
  tsar-jax run hebbian_evolve --preset car                  car racing from pixels, compiled
  tsar-jax run hebbian_evolve --environment Ant-v5          any task of gymnasium
  tsar-jax run hebbian_evolve --preset cpu-static           the same with weights that do not change
  tsar-jax run hebbian_evolve --preset cart-pole --evolution.optimiser adam
  tsar-jax run hebbian_evolve --preset cart-pole --evolution.strategy SNES     one of evosax's
  tsar-jax run hebbian_evolve --init runs/NAME              begin with another run's genome
  tsar-jax run hebbian_evolve --resume runs/NAME            go on where it was stopped

A step of the run is a generation. Writes RUN/figures/evolution.png and .pdf.
Then: tsar-jax run hebbian_evaluate --run RUN
"""

import jax

from tsar_jax import cli
from tsar_jax.devices import split_cpu
from tsar_jax.errors import doing_without, quoted
from tsar_jax.systems.hebbian.evolution import init_evolution
from tsar_jax.systems.hebbian.presets import EXPERIMENT, PRESETS
from tsar_jax.systems.hebbian.system import HebbianConfig, make_system
from tsar_jax.training.initial import init_from_run
from tsar_jax.training.loop import train


def main() -> None:
    config, run = cli.parse(
        HebbianConfig, PRESETS, experiment=EXPERIMENT, description=__doc__ or ""
    )
    split_cpu()
    with doing_without("--preset cart-pole, as it is, needs none of it"):
        system = make_system(config)
    first = init_from_run(
        config.init,
        "genome",
        lambda: jax.eval_shape(system.init, jax.random.key(0)).genome,
        run,
        lambda genome, _: init_evolution(config.evolution, genome),
    )
    trained = train(system, (), config, run, first_state=first)
    from tsar_jax.systems.hebbian.figures import evolution_figure

    print(f"figure:   {evolution_figure(trained.metrics, run.figures / 'evolution')}")
    print(f"Next: tsar-jax run hebbian_evaluate --run {quoted(run.path)}")


if __name__ == "__main__":
    cli.run_main(main)
