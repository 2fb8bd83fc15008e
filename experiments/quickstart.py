"""Meta-train a small ANML on real Omniglot, then learn 50 unseen characters one by one.

The whole path in a few minutes on two CPU cores: data, meta-training, meta-test beside the two
baselines, table and figure. A finished or interrupted quickstart is taken up where it was.
"""

import dataclasses
from pathlib import Path

from tsar_jax import cli
from tsar_jax.data import omniglot
from tsar_jax.systems.episodic.anml import AnmlConfig, make_system
from tsar_jax.systems.episodic.anml_presets import CPU, EXPERIMENT
from tsar_jax.systems.episodic.meta_test import MetaTestConfig, mean_and_band
from tsar_jax.systems.episodic.meta_test_run import load_trained, run_conditions, write_and_show
from tsar_jax.training.config import config_to_json
from tsar_jax.training.loop import train
from tsar_jax.training.run import Run, load_config

TRAIN = dataclasses.replace(
    CPU, steps=500, eval_every=None, checkpoint_every=100, eval_classes=20, eval_runs=1
)
META_TEST = MetaTestConfig(classes=(50,), runs=3, rates=(4e-3, 2e-3, 1e-3, 5e-4), draws=1)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The only setting."""

    out: Path = Path("runs/quickstart")
    """Folder of the run, new or to be taken up."""


def quickstart(folder: Path, train_config: AnmlConfig, test_config: MetaTestConfig) -> None:
    """Train in `folder` (resuming what is there), meta-test, print the table and the figure."""
    resume = (folder / "config.json").exists()
    config = load_config(folder, AnmlConfig) if resume else train_config
    data = omniglot.load_on_device()
    print(
        f"Meta-training {config.model} for {config.steps} steps on "
        f"{config.train_classes} classes of Omniglot ...",
        flush=True,
    )
    run = Run(folder, config, EXPERIMENT, "quickstart", resume=resume)
    train(make_system(config), data, config, run)
    config, network, params, step = load_trained(folder, None)
    classes = test_config.classes[0]
    print(
        f"Learning {classes} unseen classes, one image at a time, class after class ...",
        flush=True,
    )
    conditions = run_conditions(
        network,
        params,
        data["evaluation"],
        test_config,
        pixels=config.pixels,
        baselines=True,
    )
    settings = {
        "model": config.model,
        "pixels": config.pixels,
        "step": step,
        "meta_test": config_to_json(test_config),
    }
    write_and_show(
        folder,
        "meta_test-quickstart",
        conditions,
        settings,
        f"{classes} unseen characters learned one after another ({test_config.runs} runs)",
        f"{test_config.runs} runs",
    )
    trained, untrained, *_ = (mean_and_band(rows[0].test)[0] for rows in conditions.values())
    print(f"Meta-trained / random features: {trained / untrained:.2f}")


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="quickstart", description=__doc__)
    quickstart(arguments.out, TRAIN, META_TEST)


if __name__ == "__main__":
    cli.run_main(main)
