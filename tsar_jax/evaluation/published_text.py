"""Published figures as text: tables, and the marked passages of Markdown files.

A passage between two comments is filled from the file of published figures:

    <!-- published: stream=rot-mnist method=er measure=accuracy -->85.01 ± 1.90 (T)<!-- end -->

The selectors after the colon are fields of `Published`, each with its alternatives after an equals
sign, separated by commas. A passage that begins on a line of its own is filled with a table of all
matches; one within a line, with the best-sourced figures, joined by slashes.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tsar_jax.errors import UserError, nearest_hint
from tsar_jax.evaluation.published_results import (
    KEYS,
    Published,
    best_sourced,
    find_published,
    joined_figures,
    read_published,
)

SELECTORS = (*KEYS, "source")
MARKED = re.compile(r"(<!-- published: ?(.*?) ?-->)(.*?)<!-- end -->", re.DOTALL)
COLUMNS = ("stream", "method", "size", "measure", "figure", "unit", "source", "reference")


def select(selectors: Sequence[str]) -> list[Published]:
    """Return the published figures that selectors such as "method=er,der" choose.

    Raises:
      UserError: a selector is malformed or names no field, or nothing matches.
    """
    fields: dict[str, list[str | int]] = {}
    for selector in selectors:
        name, _, values = selector.partition("=")
        if name not in SELECTORS or not values:
            raise UserError(
                f"{selector!r} selects no published figures: write FIELD=VALUE,VALUE with one of "
                f"the fields {', '.join(SELECTORS)}{nearest_hint(name, SELECTORS)}."
            )
        choices = values.split(",")
        fields[name] = [int(c) if name == "size" and c.isdecimal() else c for c in choices]
    rows = find_published(**fields)
    if not rows:
        raise UserError(
            f"Nothing published matches {' '.join(selectors)}: tsar-jax published shows what there "
            f"is{_hints(fields)}."
        )
    return rows


def _hints(fields: Mapping[str, Sequence[str | int]]) -> str:
    """Return hints at the nearest known values for those that no published figure has."""
    hints = []
    for name, values in fields.items():
        known = sorted({str(getattr(row, name)) for row in read_published()} - {"", "None"})
        absent = [str(value) for value in values if str(value) not in known]
        # For numbers, similarity of spelling is no hint.
        hints += [] if name == "size" else [nearest_hint(value, known) for value in absent]
    return "".join(hints)


def published_table(rows: Sequence[Published]) -> str:
    """Return published figures as a table in Markdown, a row for each."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = ["" if getattr(row, name) is None else getattr(row, name) for name in COLUMNS]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def fill_marked(text: str, where: str) -> str:
    """Return a Markdown text with its marked passages filled anew.

    Args:
      text: the file's text.
      where: the file's name, for error messages.

    Raises:
      UserError: a passage has no end, or selects nothing.
    """

    def filled(match: re.Match[str]) -> str:
        opening, selectors, body = match.groups()
        if "<!-- published:" in body:
            raise UserError(f"{where}: {opening} has no end: close it with <!-- end -->.")
        try:
            rows = select(selectors.split())
        except UserError as error:
            raise UserError(f"{where}: {opening}: {error}") from error
        whole_line = match.start() == 0 or text[match.start() - 1] == "\n"
        if whole_line != body.startswith("\n"):
            raise UserError(
                f"{where}: {opening} stands partly on a line of its own: begin a table's passage "
                "on its own line, and another after a word of its line."
            )
        if whole_line:
            return f"{opening}\n{published_table(rows)}<!-- end -->"
        return f"{opening}{joined_figures(best_sourced(rows))}<!-- end -->"

    if text.count("<!-- published:") != text.count("<!-- end -->"):
        raise UserError(
            f"{where} has {text.count('<!-- published:')} passages of published figures but "
            f"{text.count('<!-- end -->')} ends: close each with <!-- end -->."
        )
    return MARKED.sub(filled, text)


def rewrite_marked(paths: Sequence[Path]) -> list[Path]:
    """Fill the marked passages of files, all of them or, where one is wrong, none.

    Returns:
      The files that changed.

    Raises:
      UserError: a file cannot be read or written, or has a wrong passage.
    """
    from tsar_jax.training.run import write_atomically

    changed = {}
    path = Path()
    try:
        for path in paths:
            with path.open(encoding="utf-8", newline="") as file:
                text = file.read()
            filled = fill_marked(text, str(path))
            if filled != text:
                changed[path] = filled
        for path, filled in changed.items():
            write_atomically(path, filled)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be filled ({error}): name a Markdown file.") from error
    return list(changed)


def show_published(selectors: Sequence[str], files: Sequence[Path] | None) -> None:
    """Print the published figures that selectors choose, or fill them into Markdown files.

    Args:
      selectors: selectors such as "method=er,der"; without any, all figures are printed.
      files: Markdown files whose marked passages are filled; None: the figures are printed.
    """
    if files is None:
        print(published_table(select(selectors)), end="")
    elif selectors:
        raise UserError("--write fills what each passage selects: leave out the FIELD=VALUE.")
    else:
        changed = rewrite_marked(files)
        print("\n".join(f"filled {path}" for path in changed) or "nothing to fill")
