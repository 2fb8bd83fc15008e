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

import dataclasses

from experiments._meta_trained import begin_trained, check_plastic, load_omniglot
from tsar_jax import cli
from tsar_jax.errors import quoted
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network, make_system
from tsar_jax.systems.episodic.system import check_data
from tsar_jax.training.loop import train

EXPERIMENT = "anml_meta_train"
CPU = AnmlConfig(
    channels=64,
    gate_channels=32,
    meta_rate=3e-3,
    steps=3000,
    eval_every=500,
    checkpoint_every=500,
    eval_runs=2,
    eval_rates=(2e-3, 8e-3),
)
# Without norms OML needs a lower rate and all its hidden units to leave its initial plateau: at
# 1e-3 and above, or with 256 hidden units, it was still there after 1,000 steps.
CPU_OML = dataclasses.replace(
    CPU, model="oml", channels=32, hidden_features=1024, meta_rate=5e-4, steps=4000
)
PAPER = AnmlConfig(
    pixels="unit-normalised",
    steps=20_000,
    chunk=100,
    eval_every=2000,
    checkpoint_every=1000,
    eval_classes=200,
)
# In the release's scale images differ by 1e-3 of their mean. ANML's norms take the mean away; OML
# has none, and stays at chance (results/anml), so it takes what the replications do.
PAPER_OML = dataclasses.replace(PAPER, model="oml", pixels="unit")
PRESETS = {
    "cpu": cli.Preset(CPU, "narrow networks (anml, ungated), 2 CPU cores"),
    "cpu-oml": cli.Preset(CPU_OML, "a narrow OML, 2 CPU cores"),
    "smoke": cli.Preset(
        AnmlConfig(
            channels=8,
            gate_channels=8,
            hidden_features=32,
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
        PAPER, "as published: 6.0 M parameters (ANML), 20,000 steps; --order second for the paper's"
    ),
    "paper-oml": cli.Preset(PAPER_OML, "OML as published, but for pixels that it can see"),
}


def main() -> None:
    config, run = cli.parse(AnmlConfig, PRESETS, experiment=EXPERIMENT, description=__doc__ or "")
    check_plastic(make_network(config), config.plastic)
    data = load_omniglot()
    check_data(config, data)
    begin = begin_trained(config, make_network(config), run)
    train(make_system(config), data, config, run, first_state=begin)
    print(f"{run.path}: meta-trained for {config.steps} steps.")
    print(f"Next: tsar-jax run anml_meta_test --run {quoted(run.path)}")


if __name__ == "__main__":
    cli.run_main(main)
