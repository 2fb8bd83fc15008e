"""Finished trainings of learned rules side by side: free settings, names, pooled seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsar_jax.errors import UserError, quoted
from tsar_jax.plasticity.rules import POOL
from tsar_jax.systems.learned_rules.episode_curves import EpisodeColumns
from tsar_jax.systems.learned_rules.episodes_file import EPISODES, read_episodes
from tsar_jax.systems.learned_rules.presets import EXPERIMENT
from tsar_jax.systems.learned_rules.system import LearnedRuleConfig, columns, record_shapes
from tsar_jax.training.config import config_difference, config_to_json
from tsar_jax.training.run import read_run

PSEUDO_GRADIENT = "pseudo_gradient"
"""First term of every published rule."""
RULE_NAMES = {
    frozenset({PSEUDO_GRADIENT, "ehebb"}): "eHebb",
    frozenset({PSEUDO_GRADIENT, "oja"}): "Oja",
    frozenset({PSEUDO_GRADIENT, "ehebb", "oja"}): "F_bio",
    frozenset(POOL): "pool",
}
"""The paper's names of rules that begin with the pseudo-gradient."""
SINGLE_TERM_NAMES = {"fix": "FA", "sym": "BP", "sign": "sign-symmetric"}
"""The paper's names of the pseudo-gradient alone, by feedback."""
FEEDBACK_ENDINGS = {"fix": "", "sym": ", symmetric", "sign": ", sign-symmetric"}
"""Ends of the other names, by feedback."""

RULE_SETTINGS = ("terms", "feedback", "per_layer", "l1", "start", "modules", "seed")
"""Settings in which compared runs may differ."""
OPTIMISER_SETTINGS = ("meta_rate", "rate_shares", "clip")
"""Settings of Adam, in which they may differ too, as where a rule would diverge."""
EPISODE_SETTINGS = ("split", "fixed_images", "replacement")
"""Settings of how episodes are drawn, in which they may differ too."""
MACHINE_SETTINGS = (
    *("chunk", "eval_every", "checkpoint_every", "keep", "tensorboard"),
    *("memory", "segment", "avg_window"),
)
"""Settings on which no result depends."""


class TrainedRun(NamedTuple):
    """A finished run.

    path: its folder.
    config: its config.
    episodes: columns of its episodes, each [seeds, episodes].
    """

    path: Path
    config: LearnedRuleConfig
    episodes: dict[str, np.ndarray]


def read_trained(path: Path) -> TrainedRun:
    """Return a finished run of plasticity_meta_train.

    Raises:
        UserError: the folder holds no such run, the run is not finished, or the episodes are
            another run's.
    """
    config = read_run(path, EXPERIMENT, LearnedRuleConfig)
    remedy = f"finish it with tsar-jax run {EXPERIMENT} --resume {quoted(path)}"
    if not (path / EPISODES).exists():
        raise UserError(f"{path} is not finished, for it has no {EPISODES}: {remedy}.")
    episodes = read_episodes(path)
    if list(episodes) != expected_columns(config):
        raise UserError(
            f"The columns of {path / EPISODES} are not those of its config.json: write it anew "
            f"with tsar-jax run {EXPERIMENT} --resume {quoted(path)}."
        )
    seeds, steps = episodes["loss"].shape
    if (seeds, steps) != (config.seeds, config.steps):
        raise UserError(
            f"{path} is not finished, for its {EPISODES} holds {steps} episodes of {seeds} "
            f"seeds, not {config.steps} of {config.seeds}: {remedy}."
        )
    return TrainedRun(path, config, episodes)


def expected_columns(config: LearnedRuleConfig) -> list[str]:
    """Return the names of the columns of a run's episodes, but for episode and seed."""
    shapes = record_shapes(config)
    return [column for name, shape in shapes.items() for column, _ in columns(config, name, shape)]


def check_comparable(runs: Sequence[TrainedRun]) -> None:
    """Raise UserError where runs cannot stand in one table.

    They can where they differ in no other settings than those of RULE_SETTINGS,
    OPTIMISER_SETTINGS, EPISODE_SETTINGS, MACHINE_SETTINGS and the number of seeds, and each is
    named once.
    """
    free = (*RULE_SETTINGS, *OPTIMISER_SETTINGS, *EPISODE_SETTINGS, *MACHINE_SETTINGS, "seeds")
    settings = [
        {name: value for name, value in config_to_json(run.config).items() if name not in free}
        for run in runs
    ]
    seen: set[Path] = set()
    for run, of_run in zip(runs, settings, strict=True):
        if run.path.resolve() in seen:
            raise UserError(f"{run.path} is named twice: name each run once.")
        seen.add(run.path.resolve())
        difference = config_difference(settings[0], of_run)
        if difference:
            raise UserError(
                f"{runs[0].path} and {run.path} were meta-trained differently ({difference}): "
                "leave one of them out, or train it anew."
            )


def rule_name(config: LearnedRuleConfig) -> str:
    """Return a rule's name, the paper's where it has one, otherwise its terms."""
    terms = frozenset(config.terms)
    if config.terms == (PSEUDO_GRADIENT,):
        name = SINGLE_TERM_NAMES[config.feedback]
    else:
        published = RULE_NAMES.get(terms) if config.terms[:1] == (PSEUDO_GRADIENT,) else None
        name = (published or " + ".join(config.terms)) + FEEDBACK_ENDINGS[config.feedback]
    return name + (", L1" if config.l1 else "") + (", per layer" if config.per_layer else "")


def labels(configs: Sequence[LearnedRuleConfig]) -> list[str]:
    """Return rules' names, with the settings that tell those of one name apart.

    One such name is "pool, L1, l1 0.01".
    """
    names = [rule_name(config) for config in configs]

    def apart(name: str, config: LearnedRuleConfig) -> str:
        pairs = zip(configs, names, strict=True)
        alike = [other for other, other_name in pairs if other_name == name]
        for setting in ("l1", "start", "modules", *OPTIMISER_SETTINGS, *EPISODE_SETTINGS):
            if len({getattr(other, setting) for other in alike}) > 1:
                name += f", {setting_text(config, setting)}"
        return name

    return [apart(name, config) for name, config in zip(names, configs, strict=True)]


def setting_text(config: LearnedRuleConfig, setting: str) -> str:
    """Return a setting and its value, for a label: "clip 10", "no replacement"."""
    value = getattr(config, setting)
    if isinstance(value, bool):
        return setting if value else f"no {setting}"
    if setting == "rate_shares":
        pairs = zip(config.terms, value, strict=False)
        value = tuple(f"{term} {share:g}" for term, share in pairs if share != 1)
    if isinstance(value, float):
        value = f"{value:g}"
    elif isinstance(value, tuple):
        value = " ".join(value) or "none"
    return f"{setting} {value}"


def unusual_settings(runs: Sequence[TrainedRun]) -> list[str]:
    """Return in words how each rule's optimiser and episodes differ from the published ones."""
    published = LearnedRuleConfig()
    settings = (*OPTIMISER_SETTINGS, *EPISODE_SETTINGS)
    differences = {}
    for label, run in zip(labels([run.config for run in runs]), runs, strict=True):
        differing = [s for s in settings if getattr(run.config, s) != getattr(published, s)]
        if differing:
            differences[label] = ", ".join(
                setting_text(run.config, setting) for setting in differing
            )
    return [f"{label}: {text}" for label, text in differences.items()]


def pool_seeds(runs: Sequence[TrainedRun]) -> Mapping[str, EpisodeColumns]:
    """Return the columns [seeds, episodes] of each rule by its label, with seeds of all its runs.

    Raises:
        UserError: two runs are of one rule and one seed.
    """
    by_label: dict[str, list[TrainedRun]] = {}
    for label, run in zip(labels([run.config for run in runs]), runs, strict=True):
        for other in by_label.setdefault(label, []):
            if other.config.seed == run.config.seed:
                raise UserError(
                    f"{other.path} and {run.path} are the same rule, {label}, with the same seed "
                    f"{run.config.seed}: leave one of them out."
                )
        by_label[label].append(run)
    return {
        label: {
            column: np.concatenate([run.episodes[column] for run in alike])
            for column in alike[0].episodes
        }
        for label, alike in by_label.items()
    }
