"""Meta-train TSAR, or a baseline to compare it with, on Omniglot.

Examples:
  tsar-jax run tsar_meta_train --preset smoke                 seconds: does it run?
  tsar-jax run tsar_meta_train                                a narrow TSAR on a laptop
  tsar-jax run tsar_meta_train --model unregulated            its classifier alone
  tsar-jax run tsar_meta_train --model anml                   features gated, not weights
  tsar-jax run tsar_meta_train --preset paper --model anml    256 channels, gate begun at -8
  tsar-jax run tsar_meta_train --initial-bias 0               sculpting: all synapses open at first
  tsar-jax run tsar_meta_train --preset paper                 as published: 590 M parameters
  tsar-jax run tsar_meta_train --preset paper --divide-heads  the same, shared by all devices
  tsar-jax run tsar_meta_train --init runs/NAME               begin with the weights of another run
  tsar-jax run tsar_meta_train --resume runs/NAME             go on where it was stopped

Then: tsar-jax run tsar_transfer --run runs/NAME
"""

from tsar_jax import cli
from tsar_jax.data import omniglot
from tsar_jax.devices import split_cpu
from tsar_jax.errors import quoted
from tsar_jax.systems.episodic.system import check_data
from tsar_jax.systems.episodic.trained import begin_trained, check_plastic
from tsar_jax.systems.episodic.tsar import TsarConfig, make_network, make_system, storage
from tsar_jax.systems.episodic.tsar_presets import EXPERIMENT, PRESETS
from tsar_jax.training.loop import train


def main() -> None:
    config, run = cli.parse(TsarConfig, PRESETS, experiment=EXPERIMENT, description=__doc__ or "")
    check_plastic(make_network(config), config.plastic)
    if config.seeds > 1 or config.divide_heads:
        split_cpu()
    data = omniglot.load_on_device()
    check_data(config, data)
    begin = begin_trained(config, make_network(config), run, storage(config))
    train(make_system(config), data, config, run, first_state=begin)
    print(f"{run.path}: meta-trained for {config.steps} steps.")
    print(f"Next: tsar-jax run tsar_transfer --run {quoted(run.path)}")


if __name__ == "__main__":
    cli.run_main(main)
