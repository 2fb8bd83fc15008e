"""Compare meta-learned plasticity rules: one table and the paper's figures, seeds pooled.

Example, after plasticity_meta_train with --preset fa, bp, ehebb, ...:
  tsar-jax run plasticity_compare --runs runs/fa runs/bp runs/f-bio --out results/plasticity_rules

Runs of the same rule with other seeds are further seeds of it. Writes OUT/table.md, OUT/curves.csv
(the figures' medians and 98 % bootstrap intervals) and OUT/figures: learning, angles,
orthonormality, and coefficients-RULE for every rule, as .png and .pdf.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from tsar_jax import cli
from tsar_jax.errors import UserError, check_positive
from tsar_jax.systems.learned_rules.comparison import (
    check_comparable,
    pool_seeds,
    read_trained,
    unusual_settings,
)
from tsar_jax.systems.learned_rules.comparison_table import (
    curves_csv,
    explanation,
    markdown,
    table_rows,
)
from tsar_jax.systems.learned_rules.episode_curves import WINDOW, EpisodeColumns
from tsar_jax.systems.learned_rules.episode_figures import comparison_figures
from tsar_jax.terminal import print_tables
from tsar_jax.training.run import check_writable, make_folder, write_atomically


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The runs to compare."""

    runs: tuple[Path, ...]
    """Folders of finished runs of plasticity_meta_train."""
    out: Path
    """Folder to write to."""
    avg_window: int = WINDOW
    """Episodes in the moving average of curves.csv and the figures, at least 1; coefficients are
    drawn as they are."""

    def __post_init__(self) -> None:
        check_positive(self, "avg_window")


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="plasticity_compare", description=__doc__)
    if not arguments.runs:
        raise UserError("--runs names no run: name at least one finished run's folder.")
    runs = [read_trained(path) for path in arguments.runs]
    check_comparable(runs)
    rules = pool_seeds(runs)
    check_writable(arguments.out, "--out")
    note = explanation(rules, unusual_settings(runs))
    rows = table_rows(rules)
    write(arguments, rules, markdown(rows, note), chance=1 / runs[0].config.classes)
    show(arguments.out, rows, note)


def write(
    arguments: Arguments, rules: Mapping[str, EpisodeColumns], table: str, *, chance: float
) -> None:
    """Write table, curves and figures. chance: the accuracy of a guess, 0..1."""
    out = arguments.out
    make_folder(out, "--out")
    write_atomically(out / "table.md", table)
    write_atomically(out / "curves.csv", curves_csv(rules, arguments.avg_window))
    comparison_figures(rules, out / "figures", chance, window=arguments.avg_window)


def show(out: Path, rows: Sequence[Sequence[str]], note: str) -> None:
    """Print the table, a note on it, and where everything was written."""
    from rich.table import Table

    head, *others = rows
    # Ten coefficients do not fit beside the rest.
    table = Table(*head[:-1], title="plasticity rules")
    last = Table(head[0], head[-1], title="the last coefficients")
    for row in others:
        table.add_row(*row[:-1])
        last.add_row(row[0], row[-1])
    print_tables(table, last, note, width=120)
    print(f"table:   {out / 'table.md'}")
    print(f"curves:  {out / 'curves.csv'}")
    print(f"figures: {out / 'figures'}")


if __name__ == "__main__":
    cli.run_main(main)
