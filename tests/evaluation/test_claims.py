"""The table of claims: README, file and raw results agree."""

import shutil
from pathlib import Path

import pytest

from tsar_jax.cli import command
from tsar_jax.cli.scripts import experiments
from tsar_jax.errors import UserError
from tsar_jax.evaluation.claims import (
    CLAIMS,
    README,
    Claim,
    fill_table,
    read_claims,
    read_values,
    updated_files,
    with_figure,
)

ROOT = Path(__file__).parents[2]
ROW = Claim(
    system="SYNERGy",
    claim="it learns",
    command="tsar-jax run continual_train",
    size="published",
    ours="",
    spread="",
    runs="",
    unit="percent",
    published="stream=rot-mnist method=er size=500 measure=accuracy",
    raw="raw.csv",
    where="method=er: accuracy",
    commit="0123456",
    device="a laptop",
    hours="0.5",
)


def test_readme_file_and_raw_results_agree() -> None:
    for path, text in updated_files(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, "run tsar-jax claims --write"


def test_every_claim_can_be_run_and_every_system_is_there() -> None:
    claims = read_claims(ROOT / CLAIMS)
    for claim in claims:
        assert claim.command.removeprefix("tsar-jax run ").split()[0] in experiments()
        assert bool(claim.raw) == bool(claim.commit) == bool(claim.device)
    assert {claim.system for claim in claims} == {
        "ANML",
        "OML",
        "TSAR",
        "learned rules",
        "Hebbian",
        "SYNERGy",
    }


def test_a_figure_is_computed_from_its_raw_results(tmp_path) -> None:
    (tmp_path / "raw.csv").write_text("method,accuracy\ner,0.5\nsgd,0\ner,0.6\n")
    (tmp_path / "raw.json").write_text('{"a": [[1, 2], {"b": [0.25, 0.75]}]}')
    (tmp_path / "table.md").write_text(
        "| rule | seeds | x (%) |\n| --- | --- | --- |\n"
        "| A | 20 | 64.7 (56.2–69.2) |\n| B | 5 | none |\n\nText.\n"
    )
    found = with_figure(ROW, tmp_path)
    assert (found.ours, found.spread, found.runs) == ("55.0", "7.1", "2")
    share = ROW._replace(unit="share", raw="raw.json", where="a/1/b")
    found = with_figure(share, tmp_path)
    # The 95 % confidence interval of two values: Student's t of one degree of freedom is 12.706.
    assert (found.ours, found.spread, found.runs) == (".500", "3.177", "2")
    found = with_figure(share._replace(unit="score", where="a/0"), tmp_path)
    assert (found.ours, found.spread, found.runs) == ("2", "0", "2")
    cell = ROW._replace(raw="table.md", where="rule=A: x (%)")
    found = with_figure(cell, tmp_path)
    assert (found.ours, found.spread, found.runs) == ("64.7", "56.2–69.2", "20")
    filled = fill_table("<!-- claims -->\n<!-- end claims -->\n", [found], "README.md")
    assert "| 64.7 (56.2–69.2) |" in filled
    for where in ("rule=B: x (%)", "rule=C: x (%)", "rule=A: y"):
        with pytest.raises(UserError, match=r"^table\.md has no figure at"):
            with_figure(cell._replace(where=where), tmp_path)
    assert with_figure(ROW._replace(raw="", ours="99"), tmp_path).ours == ""


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ("none.csv", "method=er: accuracy"),
        ("raw.csv", "method=derpp: accuracy"),
        ("raw.csv", "method=er: error"),
        ("raw.csv", "buffer=5: accuracy"),
        ("raw.csv", "method=nan: accuracy"),
        ("raw.json", "a/7"),
        ("raw.json", "b"),
    ],
)
def test_a_raw_result_that_is_not_there_is_named(tmp_path, raw, where) -> None:
    (tmp_path / "raw.csv").write_text("method,accuracy\ner,0.5\nnan,nan\n")
    (tmp_path / "raw.json").write_text('{"a": [1]}')
    with pytest.raises(UserError, match=f"^{raw} has no numbers at '{where}'"):
        read_values(tmp_path, raw, where)


def test_a_claim_without_a_result_says_so() -> None:
    text = "<!-- claims -->\nold\n<!-- end claims -->\n"
    filled = fill_table(text, [ROW._replace(raw="")], "README.md")
    assert "| not run |" in filled
    assert "88.91 ± 1.44 (T)" in filled
    assert "old" not in filled
    assert fill_table(filled, [ROW._replace(raw="")], "README.md") == filled
    with pytest.raises(UserError, match=r"README\.md has no place for claims"):
        fill_table("", [ROW], "README.md")


@pytest.mark.parametrize("text", ["", "system,claim\n", "\xff"])
def test_a_file_of_something_else_is_refused(tmp_path, text) -> None:
    path = tmp_path / "claims.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="is not a file of claims"):
        read_claims(path)


def test_the_command_mends_what_was_changed_by_hand(tmp_path, monkeypatch, capsys) -> None:
    shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.gif"))
    readme = (ROOT / README).read_text(encoding="utf-8")
    (tmp_path / README).write_text(
        readme.replace("| .831 ± .152 | 3 |", "| .999 | 3 |"), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    command(["claims", "--write"])
    assert (tmp_path / README).read_text(encoding="utf-8") == readme
    command(["claims"])
    assert ".831 ± .152" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "results")
    with pytest.raises(UserError, match="go to the project's folder"):
        command(["claims"])
