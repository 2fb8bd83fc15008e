"""Meta-train ANML, OML or ANML without its gate on Omniglot.

Examples:
  tsar-jax run anml_meta_train --preset smoke            seconds: does it run?
  tsar-jax run anml_meta_train --model ungated           ANML without its gate, on a laptop
  tsar-jax run anml_meta_train --preset cpu-oml          OML on a laptop
  tsar-jax run anml_meta_train --pixels unit             pixels of 0..1, not normalised
  tsar-jax run anml_meta_train --no-reset                classes are never forgotten
  tsar-jax run anml_meta_train --preset paper            as published; a GPU is advisable
  tsar-jax run anml_meta_train --preset paper-oml        OML of the published size
  tsar-jax run anml_meta_train --init runs/NAME          begin with the weights of another run
  tsar-jax run anml_meta_train --resume runs/NAME        go on where it was stopped

Then: tsar-jax run anml_meta_test --run runs/NAME
"""

from tsar_jax import cli
from tsar_jax.data import omniglot
from tsar_jax.devices import split_cpu
from tsar_jax.errors import quoted
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network, make_system
from tsar_jax.systems.episodic.anml_presets import EXPERIMENT, PRESETS
from tsar_jax.systems.episodic.system import check_data
from tsar_jax.systems.episodic.trained import begin_trained, check_plastic
from tsar_jax.training.loop import train


def main() -> None:
    config, run = cli.parse(AnmlConfig, PRESETS, experiment=EXPERIMENT, description=__doc__ or "")
    check_plastic(make_network(config), config.plastic)
    if config.seeds > 1:
        split_cpu()
    data = omniglot.load_on_device()
    check_data(config, data)
    begin = begin_trained(config, make_network(config), run)
    train(make_system(config), data, config, run, first_state=begin)
    print(f"{run.path}: meta-trained for {config.steps} steps.")
    print(f"Next: tsar-jax run anml_meta_test --run {quoted(run.path)}")


if __name__ == "__main__":
    cli.run_main(main)
