"""Meta-learn the coefficients of a plasticity rule through 250 online updates on handwriting.

Examples:
  tsar-jax run plasticity_meta_train --preset smoke         seconds: does it run?
  tsar-jax run plasticity_meta_train                        F_bio on a laptop
  tsar-jax run plasticity_meta_train --preset fa            feedback alignment; also bp, ehebb ...
  tsar-jax run plasticity_meta_train --modules my_rules --terms pseudo_gradient anti_hebb
  tsar-jax run plasticity_meta_train --no-fixed-images --no-replacement
                                                other images in every episode, of different classes
  tsar-jax run plasticity_meta_train --resume runs/NAME     go on where it was stopped; with
                                                --modules my_rules again, where the run has any

Writes RUN/episodes.csv (loss, accuracy, coefficients, angles and orthonormality of every episode
and seed), RUN/rule.json (the learned rule) and RUN/figures/episodes.png and .pdf.
Then: tsar-jax run plasticity_evaluate --rules RUN/rule.json --out FOLDER
"""

from tsar_jax import cli
from tsar_jax.data import load
from tsar_jax.devices import split_cpu
from tsar_jax.errors import quoted
from tsar_jax.modules import allowing
from tsar_jax.systems.learned_rules.episodes_file import read_episodes, write_episodes
from tsar_jax.systems.learned_rules.presets import EXPERIMENT, PRESETS
from tsar_jax.systems.learned_rules.rule_file import RULE, learned_rule, write_rule
from tsar_jax.systems.learned_rules.system import (
    LearnedRuleConfig,
    check_data,
    make_rule,
    make_system,
)
from tsar_jax.training.loop import train


def main() -> None:
    config, run = cli.parse(
        LearnedRuleConfig, PRESETS, experiment=EXPERIMENT, description=__doc__ or ""
    )
    make_rule(config)
    split_cpu()
    data = load("emnist")
    # The packaged part has one split.
    images = data.splits[config.split if len(data.splits) > 1 else "train"].images
    check_data(config, images)
    print(f"data: {data.source}")
    trained = train(make_system(config, len(images)), images, config, run)
    write_rule(
        run.path / RULE,
        learned_rule(config, trained.state, f"{run.path.name}, {config.steps} episodes"),
    )
    print(f"episodes: {write_episodes(run.path, config, trained.arrays)}")
    from tsar_jax.systems.learned_rules.episode_figures import episodes_figure

    figure, _ = episodes_figure(
        read_episodes(run.path),
        run.figures / "episodes",
        chance=1 / config.classes,
        window=config.avg_window,
    )
    print(f"figure:   {figure}")
    rule, evaluated = run.path / RULE, run.path / "evaluation"
    told = f"--rules {quoted(rule)} --out {quoted(evaluated)}{allowing(config)}"
    print(f"Next: tsar-jax run plasticity_evaluate {told}")


if __name__ == "__main__":
    cli.run_main(main)
