"""Let learned plasticity rules learn characters they have not met, update by update.

Examples:
  tsar-jax run plasticity_evaluate --out OUT --rules runs/NAME/rule.json    5 classes of EMNIST
  tsar-jax run plasticity_evaluate --out OUT --rules A/rule.json B/rule.json --target mnist
  tsar-jax run plasticity_evaluate --out OUT --rules A/rule.json --target omniglot --learn 10
  tsar-jax run plasticity_evaluate --out OUT --rules A/rule.json --held-out 12   never seen
  tsar-jax run plasticity_evaluate --out OUT --rules A/rule.json --modules my_rules   your terms
  tsar-jax run plasticity_evaluate --out OUT --preset figure-1    MNIST: feedback alignment is late

Beside the rules are feedback alignment and backpropagation at --reference-rate. Prints a table and
writes OUT/evaluation.csv (medians of accuracy and loss, with 98 % bootstrap intervals) and
OUT/figures/evaluation.png and .pdf.
"""

import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from tsar_jax import cli
from tsar_jax.data import load, own
from tsar_jax.devices import split_cpu
from tsar_jax.errors import UserError, check_known, check_limits, check_rates, doing_without
from tsar_jax.modules import check_allowed, import_modules
from tsar_jax.systems.learned_rules.episode_curves import bootstrap
from tsar_jax.systems.learned_rules.learning_curves import CurveConfig, check_rule, learning_curves
from tsar_jax.systems.learned_rules.rule_file import LearnedRule, read_rule
from tsar_jax.terminal import print_tables
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, make_folder, write_atomically

TARGETS = ("emnist", "mnist", "omniglot")

Curves = Mapping[str, Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Arguments(CurveConfig):
    """The rules to evaluate, and the images."""

    rules: tuple[Path, ...] = ()
    """Files of rules, as plasticity_meta_train writes them."""
    modules: tuple[str, ...] = ()
    """Python modules to import, which define terms of the rules; a rule that wants another is
    refused."""
    target: str = "emnist"
    """The characters: EMNIST (emnist), MNIST's digits (mnist), Omniglot's evaluation classes
    (omniglot), or the name of grey images of your own."""
    held_out: int = 0
    """Number of EMNIST's last classes to which the target is limited, which no rule may have met;
    0: all classes."""
    references: bool = True
    """Whether feedback alignment and backpropagation are evaluated as well."""
    reference_rate: float = 1e-3
    """Learning rate of feedback alignment and backpropagation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rates(self, "reference_rate")
        check_known("target", self.target, [*TARGETS, *own.own_names()])
        if not self.rules and not self.references:
            raise UserError("There is nothing to evaluate: name --rules, or leave --references on.")
        if self.held_out and self.target != "emnist":
            raise UserError(f"held_out is for emnist alone, not for {self.target}: leave it out.")


PRESETS = {
    "cpu": cli.Preset(Arguments(), "5 classes, 250 updates, 20 lifetimes"),
    "smoke": cli.Preset(
        Arguments(learn=4, query=2, every=5, runs=2, hidden=(20, 10)), "20 updates, tiny network"
    ),
    "figure-1": cli.Preset(
        Arguments(target="mnist", classes=10, learn=600, query=50, every=200, runs=10),
        "all ten digits, 6,000 updates; needs MNIST prepared",
    ),
}


def load_target(arguments: Arguments) -> np.ndarray:
    """Return images uint8 [classes, per_class, 28, 28] of the target, with ink bright on black."""
    with doing_without("--target emnist and omniglot need no data to be prepared"):
        splits = load(arguments.target).splits
    if arguments.target not in TARGETS:
        drawings = own.all_of_each(arguments.target, splits).images
        if drawings.ndim != 4:
            raise UserError(
                f"{arguments.target} is in colour, but rules learn grey images: prepare grey ones."
            )
        return drawings
    if arguments.target == "omniglot":
        return 255 - splits["evaluation"].images
    images = splits["train"].images
    check_limits(("held_out", arguments.held_out, len(images), "classes in EMNIST"))
    return images[-arguments.held_out :] if arguments.held_out else images


def gather(arguments: Arguments) -> dict[str, LearnedRule]:
    """Return the rules to evaluate by their names in table and figure."""
    found: dict[str, LearnedRule] = {}
    if arguments.references:
        rate = (arguments.reference_rate,)
        found["BP"] = LearnedRule(("pseudo_gradient",), rate, "sym")
        found["FA"] = LearnedRule(("pseudo_gradient",), rate, "fix")
    for path in arguments.rules:
        rule = read_rule(path)
        name = path.parent.name if path.name == "rule.json" else path.stem
        if name in found:
            raise UserError(f"Two rules are called {name!r}: rename a folder or a file.")
        if arguments.held_out > rule.held_out:
            raise UserError(
                f"{path} was learned with {rule.held_out} classes held out, fewer than "
                f"{arguments.held_out}: lower --held-out, or meta-train with --held-out "
                f"{arguments.held_out}."
            )
        check_allowed(rule.modules, arguments.modules, path)
        found[name] = rule
    return found


def main() -> None:
    arguments, out, _ = cli.parse_for_output(
        Arguments, PRESETS, experiment="plasticity_evaluate", description=__doc__ or ""
    )
    check_writable(out, "--out")
    rules = gather(arguments)
    import_modules(arguments.modules)
    images = load_target(arguments)
    for name, rule in rules.items():
        check_rule(rule, arguments, images.shape, name)
    split_cpu()
    on_device = jax.device_put(images)
    settings = CurveConfig(
        **{f.name: getattr(arguments, f.name) for f in dataclasses.fields(CurveConfig)}
    )
    curves: dict[str, dict[str, np.ndarray]] = {}
    for name, rule in rules.items():
        say_compiling(name)
        curves[name] = learning_curves(rule, on_device, settings)
        print(f"{name}: accuracy {curves[name]['accuracy'][:, -1].mean():.3f}", flush=True)
    write_and_show(out, arguments, curves)


def write_and_show(out: Path, arguments: Arguments, curves: Curves) -> None:
    """Write table and figure below `out`; print the table and where they are."""
    from rich.table import Table

    from tsar_jax.systems.learned_rules.learning_curves_figure import learning_curves_figure

    updates = arguments.every * np.arange(
        arguments.classes * arguments.learn // arguments.every + 1
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "rule",
            "updates",
            *(f"{m}_{s}" for m in ("accuracy", "loss") for s in ("median", "low", "high")),
        ]
    )
    table = Table(title=f"{arguments.target}: {arguments.runs} lifetimes of {updates[-1]} updates")
    for column in ("rule", "accuracy (%)", "98 % interval"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for name, measured in curves.items():
        bands = [bootstrap(measured[measure]) for measure in ("accuracy", "loss")]
        for row, at in enumerate(updates):
            values = (f"{part[row]:.6g}" for band in bands for part in band)
            writer.writerow([name, at, *values])
        median, low, high = (100 * part[-1] for part in bands[0])
        table.add_row(name, f"{median:.1f}", f"{low:.1f} to {high:.1f}")
    make_folder(out, "--out")
    write_atomically(out / "evaluation.csv", text.getvalue())
    figures = learning_curves_figure(
        updates, curves, 1 / arguments.classes, out / "figures" / "evaluation"
    )
    print_tables(table, width=100)
    print(f"curves: {out / 'evaluation.csv'}")
    print(f"figure: {figures[0]}")


if __name__ == "__main__":
    cli.run_main(main)
