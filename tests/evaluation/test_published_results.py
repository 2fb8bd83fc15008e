"""Published figures: the file, looking them up, and the marked passages of Markdown files."""

import configparser
import re
from decimal import Decimal
from pathlib import Path

import pytest

from tsar_jax.cli import command
from tsar_jax.data.continual.registry import split_name
from tsar_jax.errors import UserError
from tsar_jax.evaluation.claims import TABLE
from tsar_jax.evaluation.published_results import (
    FILE,
    Published,
    best_sourced,
    find_published,
    joined_figures,
    read_published,
)
from tsar_jax.evaluation.published_text import MARKED, fill_marked, rewrite_marked, select
from tsar_jax.plasticity.methods import METHODS

ROOT = Path(__file__).parents[2]
MARKDOWN = sorted(
    path
    for pattern in ("*.md", "results/*/README.md", "benchmarks/*.md", "docs/*.md")
    for path in ROOT.glob(pattern)
)
FIELDS = ",".join(Published._fields)
ROW = "continual,rot-mnist,er,200,accuracy,percent,85.01,1.90,,third_party,somewhere"
ER = "<!-- published: stream=rot-mnist method=er -->"
ER_FIGURES = "85.01 ± 1.90 / 88.91 ± 1.44 / 90.42 (T)"


def only(**wanted) -> Published:
    (row,) = find_published(**wanted)
    return row


@pytest.mark.parametrize(
    ("wanted", "figure", "mark"),
    [
        ({"stream": "rot-mnist", "method": "derpp", "size": 500}, "92.77 ± 1.05", "T"),
        ({"stream": "seq-tinyimg", "method": "clser", "size": 5120}, "46.74 75.81", "P P"),
        ({"stream": "seq-cifar10", "method": "icarl"}, "49.02 47.55", "T T"),
        ({"stream": "gcil-cifar100-longtail", "method": "joint"}, "56.94 ± 1.56", "T"),
        ({"stream": "mnist-360", "size": 1000}, "76.03", "U"),
        ({"stream": "car_racing", "method": "static"}, "711 ± 16", "T"),
        ({"stream": "quadruped/left_front", "method": "ABCD_lr"}, "452 ± 95", "U"),
        ({"method": "anml", "size": 300}, ".76", "P"),
        ({"method": "anml", "size": 600, "measure": "accuracy"}, ".65 .66 .638", "P P U"),
        ({"method": "anml", "measure": "features/sparsity"}, "5.9", "T"),
        ({"method": "pool", "measure": "episodes_to_learn"}, "about 300", "P"),
        ({"stream": "seq-cifar10", "method": "nobody"}, "", ""),
    ],
)
def test_the_file_holds_what_was_found(wanted, figure, mark) -> None:
    rows = find_published(**wanted)
    assert " ".join(row.figure for row in rows) == figure
    assert " ".join(row.mark for row in rows) == mark


def test_rows_are_of_what_the_project_names() -> None:
    not_ours = {"mean-er"}
    for row in find_published(system="continual"):
        split_name(row.stream)
        assert row.method in {*METHODS, *not_ours}
    row = only(stream="rot-mnist", method="er", size=200)
    assert (row.value, row.spread, row.size) == (Decimal("85.01"), Decimal("1.90"), 200)


def test_the_file_is_in_the_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.package_data"]["tsar_jax.evaluation"] == FILE.name


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "its columns are not system, stream"),
        (f"{FIELDS},more\n", "its columns are not system, stream"),
        (f"{FIELDS}\n{ROW},more\n", "line 2: it has 12 cells, not 11"),
        (f"{FIELDS}\n{ROW}\n{ROW}\n", "line 3: it repeats an earlier one"),
        (f"{FIELDS}\n{ROW.replace('85.01', '85,01')}\n", "12 cells"),
        (f"{FIELDS}\n{ROW.replace('85.01', 'much')}\n", "'much' is not a number"),
        (f"{FIELDS}\n{ROW.replace('85.01', 'nan')}\n", "'nan' is not a finite number"),
        (f"{FIELDS}\n{ROW.replace('85.01,1.90', ',')}\n", "neither a value nor words"),
        (f"{FIELDS}\n{ROW.replace('85.01,1.90,', ',1.90,words')}\n", "spread is '1.90'"),
        (f"{FIELDS}\n{ROW.replace('1.90', '-1')}\n", "spread is '-1'"),
        (f"{FIELDS}\n{ROW.replace('third_party', 'hearsay')}\n", "source is 'hearsay', not one of"),
        (f"{FIELDS}\n{ROW.replace('continual', 'alchemy')}\n", "system is 'alchemy', not one of"),
        (f"{FIELDS}\n{ROW.replace('rot-mnist', 'rot mnist')}\n", "stream is 'rot mnist'"),
        (f"{FIELDS}\n{ROW.replace(',200,', ',-200,')}\n", "size is '-200'"),
        (f"{FIELDS}\n{ROW.replace('somewhere', '')}\n", "no reference"),
        (f'{FIELDS}\n{ROW}"\n"', "unexpected end of data"),
        ("\xff".encode("latin-1"), "utf-8"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, text, wrong) -> None:
    path = tmp_path / "published.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="is not a file of published figures") as raised:
        read_published(path)
    assert wrong in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"none\.csv is not a file of published figures"):
        read_published(tmp_path / "none.csv")


def test_the_best_source_wins_wherever_it_stands() -> None:
    primary, unverified = only(method="anml", size=300), only(stream="mnist-360", size=200)
    told = primary._replace(source="third_party", reference="a friend")
    again = primary._replace(reference="another")
    for rows in ([told, primary, unverified, again], [primary, unverified, told]):
        assert best_sourced(rows) == [primary, unverified]
    assert joined_figures([primary, None]) == ".76 / – (P)"
    assert joined_figures([primary, None, told]) == ".76 (P) / – / .76 (T)"


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_marked_passage_is_current(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert fill_marked(text, str(path)) == text, f"run tsar-jax published --write {path}"


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_figure_is_repeated_by_hand(path: Path) -> None:
    by_hand = TABLE.sub("", MARKED.sub("", path.read_text(encoding="utf-8")))
    repeated = [row.figure for row in read_published() if row.spread and row.figure in by_hand]
    # Two digits and two decimals may be a figure of ours, unless the method stands beside them.
    repeated += [
        row.figure
        for row in read_published()
        for line in by_hand.splitlines()
        if re.fullmatch(r"\d\d\.\d\d", row.figure)
        and re.search(rf"(?<![\w.]){re.escape(row.figure)}(?![\w.])", line)
        and re.search(rf"(?<![\w+]){re.escape(row.method)}(?![\w+])", line, re.IGNORECASE)
    ]
    assert not repeated
    for line in by_hand.splitlines():
        assert not re.match(r"\| published.*\d", line)


def test_there_are_marked_passages() -> None:
    assert ROOT / "README.md" in MARKDOWN
    marked = [path.parent.name for path in MARKDOWN if MARKED.search(path.read_text("utf-8"))]
    assert {"car_racing", "hebbian", "plasticity_rules", "synergy", "docs"} <= set(marked)


def test_a_passage_within_a_line_is_filled_with_figures() -> None:
    text = f"Of ER {ER}?<!-- end --> is known, and {ER}<!-- end -->."
    filled = f"Of ER {ER}{ER_FIGURES}<!-- end --> is known, and {ER}{ER_FIGURES}<!-- end -->."
    assert fill_marked(text, "a.md") == filled
    assert fill_marked("no passage", "a.md") == "no passage"


def test_a_passage_of_lines_is_filled_with_a_table() -> None:
    opening = "<!-- published: stream=rot-mnist method=er size=200,500 -->"
    first, *lines, last = fill_marked(f"{opening}\nold\n<!-- end -->", "a.md").splitlines()
    assert (first, last) == (opening, "<!-- end -->")
    assert len(lines) == 4
    assert lines[2].startswith("| rot-mnist | er | 200 | accuracy | 85.01 ± 1.90 | percent | third")
    text = "\n".join([first, *lines, last])
    assert fill_marked(text, "a.md") == text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (f"of {ER}1", "1 passages of published figures but 0 ends"),
        ("of 1<!-- end -->", "0 passages of published figures but 1 ends"),
        (f"<!-- end --> {ER} {ER}<!-- end -->", "has no end"),
        ("a <!-- published: stream=lake -->1<!-- end -->", "Nothing published matches stream=lake"),
        ("a <!-- published: colour=red -->1<!-- end -->", "'colour=red' selects no published"),
        ("a <!-- published: method= -->1<!-- end -->", "'method=' selects no published"),
        (f"{ER}1<!-- end -->", "begin a table's passage on its own line"),
        (f"of {ER}\n1<!-- end -->", "begin a table's passage on its own line"),
    ],
)
def test_a_wrong_passage_is_named_and_nothing_is_written(tmp_path, text, wrong) -> None:
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(f"of {ER}old<!-- end -->")
    bad.write_text(text)
    with pytest.raises(UserError) as raised:
        rewrite_marked([good, bad])
    assert str(raised.value).startswith(str(bad))
    assert wrong in str(raised.value)
    assert "old" in good.read_text()
    assert bad.read_text() == text


def test_the_command_prints_and_writes(tmp_path, capsys) -> None:
    command(["published", "stream=rot-mnist", "method=er"])
    printed = capsys.readouterr().out
    assert printed.count("\n") == 2 + 3
    assert "| 88.91 ± 1.44 | percent | third_party |" in printed
    command(["published"])
    assert capsys.readouterr().out.count("\n") == 2 + len(read_published()) == 2 + len(select([]))
    path = tmp_path / "a.md"
    path.write_text(f"of {ER}old<!-- end -->")
    command(["published", "--write", str(path)])
    assert capsys.readouterr().out == f"filled {path}\n"
    assert path.read_text() == f"of {ER}{ER_FIGURES}<!-- end -->"
    command(["published", "--write", str(path)])
    assert capsys.readouterr().out == "nothing to fill\n"
    with pytest.raises(UserError, match="leave out the FIELD=VALUE"):
        command(["published", "method=er", "--write", str(path)])
    with pytest.raises(UserError, match=r"none\.md cannot be filled"):
        command(["published", "--write", str(tmp_path / "none.md")])
