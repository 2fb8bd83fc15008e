"""Meta-train TSAR, or a treatment to compare it with, on Omniglot.

Examples:
  tsar-jax run tsar_meta_train --preset smoke                 seconds: does it run?
  tsar-jax run tsar_meta_train                                a narrow TSAR on a laptop
  tsar-jax run tsar_meta_train --model unregulated            its classifier alone
  tsar-jax run tsar_meta_train --model anml                   features gated, not weights
  tsar-jax run tsar_meta_train --preset paper --model anml    256 channels, gate begun at -8
  tsar-jax run tsar_meta_train --initial-bias 0               sculpting: all synapses open at first
  tsar-jax run tsar_meta_train --preset paper                 as published: 590 M parameters
  tsar-jax run tsar_meta_train --init runs/NAME               begin with the weights of another run
  tsar-jax run tsar_meta_train --resume runs/NAME             go on where it was stopped

Then: tsar-jax run tsar_transfer --run runs/NAME
"""

from experiments._meta_trained import begin_trained, check_plastic, load_omniglot
from tsar_jax import cli
from tsar_jax.errors import quoted
from tsar_jax.systems.episodic.system import check_data
from tsar_jax.systems.episodic.tsar import TsarConfig, in_bfloat16, make_network, make_system
from tsar_jax.training.loop import train

EXPERIMENT = "tsar_meta_train"
CPU = TsarConfig(
    channels=32,
    regulator_channels=48,
    steps=2000,
    meta_rate=3e-3,
    eval_every=500,
    checkpoint_every=500,
    eval_runs=2,
    eval_rates=(2e-3, 8e-3),
)
PRESETS = {
    "cpu": cli.Preset(CPU, "22 M parameters, 2 CPU cores"),
    "smoke": cli.Preset(
        TsarConfig(
            channels=8,
            regulator_channels=8,
            steps=20,
            chunk=10,
            eval_every=20,
            checkpoint_every=10,
            eval_classes=5,
            eval_runs=2,
        ),
        "tiny networks, 20 steps",
    ),
    "paper": cli.Preset(
        TsarConfig(
            pixels="byte-normalised",
            repeat_first=True,
            steps=25_000,
            chunk=10,
            eval_every=5000,
            checkpoint_every=1000,
            keep=2,
            eval_runs=1,
            eval_rates=(1e-3,),
        ),
        "as published: 590 M parameters, 25,000 steps, first order; --order second for the other",
    ),
}


def main() -> None:
    config, run = cli.parse(TsarConfig, PRESETS, experiment=EXPERIMENT, description=__doc__ or "")
    check_plastic(make_network(config), config.plastic)
    data = load_omniglot()
    check_data(config, data)
    begin = begin_trained(config, make_network(config), run, in_bfloat16(config))
    train(make_system(config), data, config, run, first_state=begin)
    print(f"{run.path}: meta-trained for {config.steps} steps.")
    print(f"Next: tsar-jax run tsar_transfer --run {quoted(run.path)}")


if __name__ == "__main__":
    cli.run_main(main)
