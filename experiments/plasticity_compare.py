"""Compare meta-learned plasticity rules: one table and the paper's figures, seeds pooled.

Example, after plasticity_meta_train with --preset fa, bp, ehebb, ...:
  tsar-jax run plasticity_compare --runs runs/fa runs/bp runs/f-bio --out results/plasticity_rules

Runs of the same rule with other seeds are further seeds of it. Writes OUT/table.md, OUT/curves.csv
(the figures' medians and 98 % bootstrap intervals) and OUT/figures: learning, angles,
orthonormality, and coefficients-RULE for every rule, as .png and .pdf.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsar_jax import cli
from tsar_jax.errors import UserError, check_positive, quoted
from tsar_jax.evaluation.published_results import LEGEND, find_published, joined_figures
from tsar_jax.plasticity.rules import POOL
from tsar_jax.systems.learned_rules.figures import (
    WINDOW,
    Curve,
    Run,
    alignment_figure,
    bootstrap,
    coefficient_columns,
    coefficients_figure,
    curve,
    layer_columns,
    learning_figure,
    lost_seeds,
    medians,
)
from tsar_jax.systems.learned_rules.presets import EXPERIMENT
from tsar_jax.systems.learned_rules.records import EPISODES, read_episodes
from tsar_jax.systems.learned_rules.system import LearnedRuleConfig, columns, record_shapes
from tsar_jax.terminal import print_tables
from tsar_jax.training.config import config_difference, config_to_json
from tsar_jax.training.run import check_writable, make_folder, read_run, write_atomically

FIRST = "pseudo_gradient"
NAMES = {
    frozenset({FIRST, "ehebb"}): "eHebb",
    frozenset({FIRST, "oja"}): "Oja",
    frozenset({FIRST, "ehebb", "oja"}): "F_bio",
    frozenset(POOL): "pool",
}
"""The paper's names of rules that begin with the pseudo-gradient."""
ALONE = {"fix": "FA", "sym": "BP", "sign": "sign-symmetric"}
"""Those of the pseudo-gradient alone, by feedback."""
FEEDBACK = {"fix": "", "sym": ", symmetric", "sign": ", sign-symmetric"}

OF_THE_RULE = ("terms", "feedback", "per_layer", "l1", "start", "modules", "seed")
"""Settings in which compared runs may differ."""
OF_THE_OPTIMISER = ("meta_rate", "rate_shares", "clip")
"""Those in which they may differ too, as where a rule would diverge: the table says how."""
OF_THE_EPISODES = ("split", "fixed_images", "replacement")
"""Those of how episodes are drawn, which may differ as well: the table says how."""
OF_THE_MACHINE = (
    *("chunk", "eval_every", "checkpoint_every", "keep", "tensorboard"),
    *("memory", "segment", "avg_window"),
)
"""Settings on which no result depends."""

LAST = 50
"""Episodes at the end of a run that stand for what it reached."""
EARLY = ((10, 20), (90, 110))
"""Episodes from and to which the accuracy is tabulated too."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to compare."""

    runs: tuple[Path, ...]
    """Folders of finished runs of plasticity_meta_train."""
    out: Path
    """Folder to write to."""
    avg_window: int = WINDOW
    """Episodes in the moving average of curves.csv and the figures, at least 1; coefficients are
    drawn as they are."""

    def __post_init__(self) -> None:
        check_positive(self, "avg_window")


class Trained(NamedTuple):
    """One run: its settings and the columns of its episodes, each [seeds, episodes]."""

    path: Path
    config: LearnedRuleConfig
    episodes: dict[str, np.ndarray]


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="plasticity_compare", description=__doc__)
    if not arguments.runs:
        raise UserError("--runs names no run: name at least one finished run's folder.")
    runs = [read_trained(path) for path in arguments.runs]
    check_comparable(runs)
    rules = pool(runs)
    check_writable(arguments.out, "--out")
    notes = unusual_settings(runs)
    write_and_show(arguments.out, rules, 1 / runs[0].config.classes, notes, arguments.avg_window)


def read_trained(path: Path) -> Trained:
    """A finished run of plasticity_meta_train. Raises UserError for anything else."""
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
    found, wanted = episodes["loss"].shape, (config.seeds, config.steps)
    if found != wanted:
        raise UserError(
            f"{path} is not finished, for its {EPISODES} holds {found[1]} episodes of {found[0]} "
            f"seeds, not {wanted[1]} of {wanted[0]}: {remedy}."
        )
    return Trained(path, config, episodes)


def expected_columns(config: LearnedRuleConfig) -> list[str]:
    """The columns that a run's episodes have, without episode and seed."""
    shapes = record_shapes(config)
    return [column for name, shape in shapes.items() for column, _ in columns(config, name, shape)]


def check_comparable(runs: Sequence[Trained]) -> None:
    """Raises UserError for a run named twice, or settings that differ but are not the rule's."""
    free = (*OF_THE_RULE, *OF_THE_OPTIMISER, *OF_THE_EPISODES, *OF_THE_MACHINE, "seeds")
    settings = [
        {name: value for name, value in config_to_json(run.config).items() if name not in free}
        for run in runs
    ]
    seen: set[Path] = set()
    for run, of_run in zip(runs, settings, strict=True):
        if run.path.resolve() in seen:
            raise UserError(f"--runs names {run.path} twice: name each run once.")
        seen.add(run.path.resolve())
        difference = config_difference(settings[0], of_run)
        if difference:
            raise UserError(
                f"{runs[0].path} and {run.path} were meta-trained differently ({difference}): "
                "leave one of them out, or train it anew."
            )


def rule_name(config: LearnedRuleConfig) -> str:
    """A rule's name: the paper's where it has one, else its terms."""
    terms = frozenset(config.terms)
    if config.terms == (FIRST,):
        name = ALONE[config.feedback]
    else:
        published = NAMES.get(terms) if config.terms[:1] == (FIRST,) else None
        name = (published or " + ".join(config.terms)) + FEEDBACK[config.feedback]
    return name + (", L1" if config.l1 else "") + (", per layer" if config.per_layer else "")


def labels(configs: Sequence[LearnedRuleConfig]) -> list[str]:
    """Rules' names, with the settings by which those of one name differ: "pool, L1, l1 0.01"."""
    names = [rule_name(config) for config in configs]

    def apart(name: str, config: LearnedRuleConfig) -> str:
        alike = [other for other, its in zip(configs, names, strict=True) if its == name]
        for setting in ("l1", "start", "modules", *OF_THE_OPTIMISER, *OF_THE_EPISODES):
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


def unusual_settings(runs: Sequence[Trained]) -> list[str]:
    """Return how each rule's optimiser and episodes differ from the published ones."""
    usual = LearnedRuleConfig()
    settings = (*OF_THE_OPTIMISER, *OF_THE_EPISODES)
    found = {}
    for label, run in zip(labels([run.config for run in runs]), runs, strict=True):
        differing = [s for s in settings if getattr(run.config, s) != getattr(usual, s)]
        if differing:
            found[label] = ", ".join(setting_text(run.config, setting) for setting in differing)
    return [f"{label}: {text}" for label, text in found.items()]


def pool(runs: Sequence[Trained]) -> dict[str, dict[str, np.ndarray]]:
    """Columns [seeds, episodes] by the rule's label, the seeds of all its runs.

    Raises UserError for two runs of one rule and one seed.
    """
    found: dict[str, list[Trained]] = {}
    for label, run in zip(labels([run.config for run in runs]), runs, strict=True):
        for other in found.setdefault(label, []):
            if other.config.seed == run.config.seed:
                raise UserError(
                    f"{other.path} and {run.path} are the same rule, {label}, with the same seed "
                    f"{run.config.seed}: leave one of them out."
                )
        found[label].append(run)
    return {
        label: {
            column: np.concatenate([run.episodes[column] for run in alike])
            for column in alike[0].episodes
        }
        for label, alike in found.items()
    }


def interval(values: np.ndarray, form: str) -> str:
    """Return a median over seeds [seeds] with its bootstrap interval: 70.1 (68.9–71.3)."""
    median, low, high = (format(float(end), form) for end in bootstrap(values))
    return f"{median} ({low}–{high})" if len(values) > 1 else median


def early_accuracy(accuracy: np.ndarray, first: int, last: int) -> str:
    """Of [seeds, episodes] in percent, the median over seeds from one episode to another."""
    if accuracy.shape[1] < last:
        return "–"
    return f"{100 * medians(accuracy[:, first - 1 : last].mean(1)):.1f}"


def coefficients(run: Run) -> str:
    """A rule's last coefficients, medians over seeds; layer after layer where each has its own."""
    return ", ".join(
        f"{term} {' '.join(f'{medians(run[column][:, -1]):.3g}' for column in of_layers)}"
        for term, of_layers in by_term(coefficient_columns(run)).items()
    )


def by_term(columns: Mapping[int, Mapping[str, str]]) -> dict[str, list[str]]:
    """Columns by layer and term, as a list over layers for each term."""
    terms = next(iter(columns.values()))
    return {term: [of_layer[term] for of_layer in columns.values()] for term in terms}


def table_rows(rules: Mapping[str, Run]) -> list[list[str]]:
    """The table, its head first: what each rule reached, and how soon."""
    rows = [
        [
            *("rule", "seeds (lost)", "episodes", "accuracy (%)", "meta-loss"),
            *(f"at {first}–{last}" for first, last in EARLY),
            *("angle (°)", "published (%)", "coefficients"),
        ]
    ]
    for label, run in rules.items():
        episodes = run["accuracy"].shape[1]
        angles = [np.nanmean(run[c][:, -LAST:]) for c in hidden_angles(run)]
        rows.append(
            [
                *(label, with_lost(run), str(episodes)),
                interval(100 * run["accuracy"][:, -LAST:].mean(1), ".1f"),
                interval(np.nanmean(run["loss"][:, -LAST:], 1), ".2f"),
                *(early_accuracy(run["accuracy"], *window) for window in EARLY),
                f"{np.mean(angles):.1f}" if angles else "–",
                published_accuracy(label),
                coefficients(run),
            ]
        )
    return rows


def with_lost(run: Run) -> str:
    """Return how many seeds a run has, and how many of them are lost, if any: "20 (1)"."""
    lost = lost_seeds(run)
    return f"{len(run['loss'])}" + (f" ({lost})" if lost else "")


def published_accuracy(label: str) -> str:
    """Return a rule's published accuracy on EMNIST with its source, or a dash where there is none.

    label: as of `labels`; the paper has none of a rule with settings of its own.
    """
    rows = find_published(system="learned_rules", stream="emnist", method=label, measure="accuracy")
    return joined_figures(rows) if rows else "–"


def hidden_angles(run: Run) -> list[str]:
    """Columns of the hidden layers' angles."""
    return [column for layer, column in layer_columns(run, "angle").items() if layer]


def curves_csv(rules: Mapping[str, Run], window: int) -> str:
    """Return what the figures draw: a row per episode and rule, three numbers for every column.

    Empty where a rule lacks a column. window: episodes in the moving average.
    """
    names = list(dict.fromkeys(column for run in rules.values() for column in run))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["episode", "rule", *(f"{n}_{part}" for n in names for part in Curve._fields)])
    for label, run in rules.items():
        curves = {name: curve(run, name, window) for name in run}
        absent = [""] * len(Curve._fields)
        for episode in range(run["loss"].shape[1]):
            values = [
                [f"{part[episode]:.6g}" for part in curves[name]] if name in curves else absent
                for name in names
            ]
            writer.writerow([episode + 1, label, *(value for three in values for value in three)])
    return text.getvalue()


def write_figures(folder: Path, rules: Mapping[str, Run], chance: float, window: int) -> None:
    """Write every figure as PNG and PDF. window: episodes in the moving average."""
    learning_figure(rules, folder / "learning", chance, window=window)
    alignment_figure(rules, folder / "angles", "angle", window=window)
    alignment_figure(rules, folder / "orthonormality", "orthonormality", window=window)
    for label, run in rules.items():
        name = re.sub(r"[^\w.]+", "-", label)
        coefficients_figure(run, folder / f"coefficients-{name}", label)


def write_and_show(
    out: Path, rules: Mapping[str, Run], chance: float, notes: Sequence[str], window: int
) -> None:
    """Write table, curves and figures below `out`; print the table and where they are.

    notes: see `unusual_settings`. window: episodes in the curves' moving average.
    """
    from rich.table import Table

    head, *rows = table_rows(rules)
    lines = [head, ["---", *["---:"] * (len(head) - 2), "---"], *rows]
    markdown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    make_folder(out, "--out")
    write_atomically(out / "table.md", f"{markdown}\n\n{explanation(rules, notes)}\n")
    write_atomically(out / "curves.csv", curves_csv(rules, window))
    write_figures(out / "figures", rules, chance, window)
    # Ten coefficients do not fit beside the rest.
    table = Table(*head[:-1], title="plasticity rules")
    last = Table(head[0], head[-1], title="the last coefficients")
    for row in rows:
        table.add_row(*row[:-1])
        last.add_row(row[0], row[-1])
    print_tables(table, last, explanation(rules, notes), width=120)
    print(f"table:   {out / 'table.md'}")
    print(f"curves:  {out / 'curves.csv'}")
    print(f"figures: {out / 'figures'}")


def explanation(rules: Mapping[str, Run], notes: Sequence[str]) -> str:
    """What the table's numbers are, and which rules were trained otherwise than published."""
    last = min(LAST, next(iter(rules.values()))["loss"].shape[1])
    early = " and ".join(f"{first}–{end}" for first, end in EARLY)
    return (
        f"Accuracy, meta-loss and the hidden layers' mean angle: of the last {last} episodes, "
        "medians over seeds that are not lost, with 98 % bootstrap intervals. "
        f"At {early}: accuracy (%) of those episodes. "
        "Coefficients: of the last episode, medians over seeds; from the first layer to the last "
        f"where each has its own. Published: {LEGEND}."
        + "".join(f" Otherwise than published: {note}." for note in notes)
    )


if __name__ == "__main__":
    cli.run_main(main)
