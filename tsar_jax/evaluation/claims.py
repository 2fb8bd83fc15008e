"""A table of the papers' claims beside this project's own results.

`results/claims.csv` has a row for each claim. `tsar-jax claims --write` computes the columns
`ours`, `spread` and `runs` from the raw results that a row names, and fills the table in the
README between the comments `claims` and `end claims`. Columns:

| column | content |
|---|---|
| system, claim | the system, and the claim in words |
| command | the command that computes our figure |
| size | of the network and the training: published, or which preset |
| ours, spread, runs | mean, spread and number of what `where` selects; empty: not run |
| unit | share, percent or score: see `SPREADS` |
| published | selectors of published figures, as `tsar-jax published` takes them |
| raw, where | file of raw results, and what of it: see `read_values`, `read_cell` |
| commit | that recorded the raw results |
| device, hours | where the runs were made, and hours of each; empty: not recorded |
"""

import csv
import io
import json
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tsar_jax.errors import UserError
from tsar_jax.evaluation.published_results import best_sourced, joined_figures
from tsar_jax.evaluation.published_text import select
from tsar_jax.evaluation.spread import confidence_half_width

CLAIMS = Path("results", "claims.csv")
README = Path("README.md")
NOT_RUN = "not run"
UNITS = ("share", "percent", "score")
TABLE = re.compile(r"(<!-- claims -->\n).*?(<!-- end claims -->)", re.DOTALL)
HEAD = ("system", "claim", "size", "ours", "runs", "published", "command", "commit", "where made")


class Claim(NamedTuple):
    """One claim; the module's docstring describes the fields."""

    system: str
    claim: str
    command: str
    size: str
    ours: str
    spread: str
    runs: str
    unit: str
    published: str
    raw: str
    where: str
    commit: str
    device: str
    hours: str


def read_claims(path: Path) -> list[Claim]:
    """Return the claims in a file, in its order.

    Raises:
        UserError: the file cannot be read or does not hold claims.
    """
    try:
        head, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
        if tuple(head) != Claim._fields:
            raise ValueError(f"its columns are not {', '.join(Claim._fields)}")
        claims = [Claim(*row) for row in rows]
        for claim in claims:
            if claim.unit not in UNITS:
                raise ValueError(f"the unit {claim.unit!r} is not one of {', '.join(UNITS)}")
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is not a file of claims ({error}): correct it.") from error
    return claims


def read_values(root: Path, raw: str, where: str) -> list[float]:
    """Return the numbers in a row's raw results, one for each run.

    Args:
        root: the project's folder.
        raw: path of a JSON or CSV file from there.
        where: in JSON, keys and indices that lead to a list: "conditions/anml/0/test". In CSV,
            cells that select rows, and the column: "method=er buffer=500: accuracy".

    Raises:
        UserError: there are no such numbers.
    """
    try:
        text = (root / raw).read_text(encoding="utf-8")
        if raw.endswith(".json"):
            node = json.loads(text)
            for key in where.split("/"):
                node = node[int(key) if isinstance(node, list) else key]
            values = list(map(float, node))
        else:
            cells, _, column = where.rpartition(": ")
            selection = [cell.partition("=")[::2] for cell in cells.split()]
            rows = csv.DictReader(io.StringIO(text))
            values = [
                float(row[column])
                for row in rows
                if all(row[name] == value for name, value in selection)
            ]
        if not values or not all(map(math.isfinite, values)):
            raise ValueError("no finite numbers")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{raw} has no numbers at {where!r} ({error!r}): correct it.") from error
    return values


def with_figure(claim: Claim, root: Path) -> Claim:
    """Return a claim with our figure computed from its raw results, without one if it has none.

    From a table in Markdown, figure and interval are copied as text.

    Raises:
        UserError: see `read_values`.
    """
    if not claim.raw:
        return claim._replace(ours="", spread="", runs="")
    if claim.raw.endswith(".md"):
        return claim._replace(**read_cell(root, claim.raw, claim.where))
    values = read_values(root, claim.raw, claim.where)
    spread = SPREADS[claim.unit](np.asarray(values)) if len(values) > 1 else None
    return claim._replace(
        ours=_number(statistics.fmean(values), claim.unit),
        spread="" if spread is None else _number(float(spread), claim.unit),
        runs=str(len(values)),
    )


SPREADS: dict[str, Callable[[np.ndarray], Any]] = {
    "share": confidence_half_width,
    "percent": lambda values: values.std(ddof=1),
    "score": lambda values: values.std(),
}
"""Functions for the number after ±, by unit, as in the results' own tables: the half width of the
95 % confidence interval of the mean, the sample standard deviation over seeds, and the standard
deviation of the lifetimes themselves.
"""


def read_cell(root: Path, raw: str, where: str) -> dict[str, str]:
    """Return figure, interval and number of seeds from a table in Markdown.

    Args:
        root: the project's folder.
        raw: path of a Markdown file from there.
        where: a cell that selects the row, and the column: "rule=FA: accuracy (%)".

    Raises:
        UserError: there is no such cell, or it holds no figure with its interval.
    """
    row, _, column = where.partition(": ")
    name, _, value = row.partition("=")
    try:
        text = (root / raw).read_text(encoding="utf-8")
        lines = [line.strip("| ") for line in text.splitlines() if line.startswith("|")]
        head, _, *rows = [re.split(r" *\| *", line) for line in lines]
        cells = next(c for c in (dict(zip(head, r, strict=True)) for r in rows) if c[name] == value)
        match = re.fullmatch(r"([\d.]+) \((.+)\)", cells[column])
        if match is None:
            raise ValueError(f"{cells[column]!r} is no figure with its interval")
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise UserError(f"{raw} has no figure at {where!r} ({error!r}): correct it.") from error
    return {"ours": match[1], "spread": match[2], "runs": cells["seeds"]}


def _number(value: float, unit: str) -> str:
    """Return a figure with its unit's digits; raw results are shares where the unit is percent."""
    if unit == "percent":
        return f"{100 * value:.1f}"
    return f"{value:.3f}".removeprefix("0") if unit == "share" else f"{value:.0f}"


def claims_csv(claims: Sequence[Claim]) -> str:
    """Return claims as the text of their file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Claim._fields, *claims])
    return text.getvalue()


def claims_table(claims: Sequence[Claim]) -> str:
    """Return claims as a table in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for claim in claims:
        where = ", ".join(filter(None, (claim.device, claim.hours and f"{claim.hours} h a run")))
        figure = " ± ".join(filter(None, (claim.ours, claim.spread)))
        if "–" in claim.spread:
            figure = f"{claim.ours} ({claim.spread})"
        cells = {
            "ours": figure or NOT_RUN,
            "published": _published(claim),
            "command": f"`{claim.command}`",
            "where made": where,
        }
        row = [cells.get(name) or getattr(claim, name, "") for name in HEAD]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _published(claim: Claim) -> str:
    if not claim.published:
        return "–"
    return joined_figures(best_sourced(select(claim.published.split())))


def fill_table(text: str, claims: Sequence[Claim], where: str) -> str:
    """Return a Markdown text with its table of claims replaced. where: the file, for messages.

    Raises:
        UserError: the text has no place for the table.
    """
    if not TABLE.search(text):
        raise UserError(f"{where} has no place for claims: add <!-- claims --> and an end.")
    return TABLE.sub(lambda match: f"{match[1]}{claims_table(claims)}{match[2]}", text)


def updated_files(root: Path) -> Mapping[Path, str]:
    """Return the texts of the file of claims and of the README with our figures computed anew.

    Args:
        root: the project's folder.

    Raises:
        UserError: one of the files is missing or wrong, or a raw result is not there.
    """
    claims = [with_figure(claim, root) for claim in read_claims(root / CLAIMS)]
    readme = root / README
    filled = fill_table(readme.read_text(encoding="utf-8"), claims, str(readme))
    return {root / CLAIMS: claims_csv(claims), readme: filled}


def show_claims(write: bool) -> None:
    """Print the claims of the project in the working folder, or update its files.

    write: whether the files are updated, as in `updated_files`.

    Raises:
        UserError: the working folder is not the project's, or see `updated_files`.
    """
    from tsar_jax.training.run import write_atomically

    root = Path()
    if not (root / CLAIMS).is_file():
        raise UserError(f"There is no {CLAIMS} here: go to the project's folder.")
    if not write:
        print(claims_table(read_claims(root / CLAIMS)), end="")
        return
    for path, text in updated_files(root).items():
        write_atomically(path, text)
        print(f"filled {path}")
