"""Published figures, with their sources, read from `published_results.csv` beside this file.

Every table and figure that shows a published figure takes it from here. A row is one figure:

| column | content |
|---|---|
| system | anml, learned_rules, hebbian or continual |
| stream | the data, stream or body: omniglot, rot-mnist, quadruped/standard |
| method | as the project names it: anml, FA, ABCD_lr, derpp |
| size | classes learned (anml) or the buffer's items (continual); empty where there is none |
| measure | accuracy, task_accuracy, fitness, gate/sparsity |
| unit | percent, share, score, or the thing counted |
| value, spread | as published, with its digits; spread: a standard deviation, empty if not known |
| words | the published words where there is no exact number: "about 25" |
| source | primary, third_party or unverified: see `MARKS` |
| reference | the paper, with the table or figure |
"""

import csv
import functools
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

from tsar_jax.errors import UserError

FILE = Path(__file__).with_name("published_results.csv")
SYSTEMS = ("anml", "learned_rules", "hebbian", "continual")
MARKS = {"primary": "P", "third_party": "T", "unverified": "U"}
"""Letters that mark the kinds of source in tables, the best kind first."""
LEGEND = "P: primary source, T: quoted by a third party, U: from memory, unverified"


class Published(NamedTuple):
    """One published figure; the module's docstring describes the fields."""

    system: str
    stream: str
    method: str
    size: int | None
    measure: str
    unit: str
    value: Decimal | None
    spread: Decimal | None
    words: str
    source: str
    reference: str

    @property
    def mark(self) -> str:
        """Return the letter of the kind of source."""
        return MARKS[self.source]

    @property
    def figure(self) -> str:
        """Return the figure as text, without its source: "85.01 ± 1.90", ".65", "about 25"."""
        if self.words:
            return self.words
        numbers = [f"{number:f}" for number in (self.value, self.spread) if number is not None]
        if self.unit == "share":
            numbers = [number.removeprefix("0") or "0" for number in numbers]
        return " ± ".join(numbers)

    @property
    def key(self) -> tuple[str, str, str, int | None, str]:
        """Return the fields `KEYS`, which are equal for the same quantity from several sources."""
        return self.system, self.stream, self.method, self.size, self.measure


KEYS = ("system", "stream", "method", "size", "measure")


@functools.lru_cache
def read_published(path: Path = FILE) -> tuple[Published, ...]:
    """Read the published figures.

    Args:
      path: a CSV file with the columns of `Published`.

    Returns:
      The figures in the file's order.

    Raises:
      UserError: the file is missing or one of its rows is not a published figure.
    """
    figures: dict[tuple[object, ...], Published] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file, strict=True)
            head = next(lines, [])
            if tuple(head) != Published._fields:
                raise ValueError(f"its columns are not {', '.join(Published._fields)}")
            for cells in lines:
                try:
                    row = parse_row(cells)
                    if figures.setdefault((*row.key, row.reference), row) is not row:
                        raise ValueError("it repeats an earlier one")
                except ValueError as error:
                    raise ValueError(f"line {lines.line_num}: {error}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is not a file of published figures ({error}): correct it, or install "
            "tsar_jax anew."
        ) from error
    return tuple(figures.values())


def parse_row(cells: Sequence[str]) -> Published:
    """Return a row of the file as a published figure.

    Args:
      cells: the row's texts, one for each field of `Published`.

    Raises:
      ValueError: a cell is missing, malformed, or of an unknown system or kind of source.
    """
    if len(cells) != len(Published._fields):
        raise ValueError(f"it has {len(cells)} cells, not {len(Published._fields)}")
    row = dict(zip(Published._fields, cells, strict=True))
    for name in ("stream", "method", "measure", "unit"):
        if not re.fullmatch(r"[\w./-]+", row[name]):
            raise ValueError(f"its {name} is {row[name]!r}, not one word")
    for name, known in (("system", SYSTEMS), ("source", tuple(MARKS))):
        if row[name] not in known:
            raise ValueError(f"its {name} is {row[name]!r}, not one of {', '.join(known)}")
    if not re.fullmatch(r"([1-9]\d*)?", row["size"]):
        raise ValueError(f"its size is {row['size']!r}, not a positive whole number")
    value, spread = parse_number(row["value"]), parse_number(row["spread"])
    if value is None and not row["words"]:
        raise ValueError("it has neither a value nor words")
    if spread is not None and (spread < 0 or value is None):
        raise ValueError(f"its spread is {row['spread']!r}, not that of a value")
    if not row["reference"]:
        raise ValueError("it has no reference")
    size = int(row["size"]) if row["size"] else None
    texts = {name: row[name] for name in ("system", "stream", "method", "measure", "unit")}
    texts |= {name: row[name] for name in ("words", "source", "reference")}
    return Published(**texts, size=size, value=value, spread=spread)


def parse_number(text: str) -> Decimal | None:
    """Return a finite number, or None for an empty cell. Raises ValueError for anything else."""
    if not text:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a number") from None
    if not number.is_finite():
        raise ValueError(f"{text!r} is not a finite number")
    return number


def find_published(**fields: str | int | Sequence[str | int] | None) -> list[Published]:
    """Return the figures whose fields have given values.

    Args:
      **fields: by field of `Published`, its value or a sequence of alternatives.

    Returns:
      The figures in the file's order; none where nothing is published.
    """
    choices = {
        name: value if isinstance(value, tuple | list) else (value,)
        for name, value in fields.items()
    }
    return [
        row
        for row in read_published()
        if all(getattr(row, name) in values for name, values in choices.items())
    ]


def best_sourced(rows: Iterable[Published]) -> list[Published]:
    """Return the best-sourced figure of each `key`, the first where sources are equally good."""
    order = list(MARKS)
    best: dict[tuple[object, ...], Published] = {}
    for row in rows:
        other = best.setdefault(row.key, row)
        if order.index(row.source) < order.index(other.source):
            best[row.key] = row
    return list(best.values())


def joined_figures(rows: Sequence[Published | None]) -> str:
    """Return figures on one line with their sources: "85.01 ± 1.90 / 88.91 ± 1.44 (T)".

    Args:
      rows: the figures; None stands for one that is not published, and is a dash.

    Returns:
      The text, with one mark at its end where all sources are of one kind, else one after each.
    """
    marks = {row.mark for row in rows if row}
    if len(marks) == 1:
        return f"{' / '.join(row.figure if row else '–' for row in rows)} ({marks.pop()})"
    return " / ".join(f"{row.figure} ({row.mark})" if row else "–" for row in rows)
