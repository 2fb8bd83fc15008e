"""Every command that a --help or a hint prints is one that its script understands."""

import ast
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
import tyro

import experiments
from tsar_jax.cli import settings
from tsar_jax.errors import UserError
from tsar_jax.evaluation.claims import CLAIMS, read_claims

FOLDER = Path(experiments.__file__).parent
SCRIPTS = {path.stem: path for path in FOLDER.glob("[!_]*.py")}
PLACE = "PLACE"
"""Stands for what a hint fills in."""


class Parsed(Exception):
    """The command line was understood."""


def texts(path: Path) -> list[str]:
    """The strings of a script, with `PLACE` for what is filled into them."""
    found = []
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    parts_of_others = {id(p) for n in nodes if isinstance(n, ast.JoinedStr) for p in n.values}
    for node in nodes:
        if id(node) in parts_of_others:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [str(p.value) if isinstance(p, ast.Constant) else PLACE for p in node.values]
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def commands() -> list[str]:
    """The commands in all scripts' strings, without their comments, which two spaces part."""
    found = set()
    for path in FOLDER.glob("*.py"):
        for text in texts(path):
            for command in re.findall(r"tsar-jax run (\w+ +--.+)", text):
                found.add(re.split(r"\s{2,}(?!--)|\.$|: ", command)[0].strip())
    return sorted(c for c in found if c.split()[0] in SCRIPTS)


def claimed() -> list[str]:
    """The commands of the table of claims."""
    claims = read_claims(FOLDER.parent / CLAIMS)
    return sorted({claim.command.removeprefix("tsar-jax run ") for claim in claims})


def understood(command: str) -> bool:
    """Run a script until its command line is parsed; what it would read need not be there."""
    name, *arguments = shlex.split(command)
    script = importlib.import_module(f"experiments.{name}")
    whole = tyro.cli

    def parse_and_stop(*args, **kwargs):
        whole(*args, **kwargs)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tyro, "cli", parse_and_stop)
        patch.setattr(settings, "import_modules", lambda names: None)
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            script.main()
        except Parsed:
            return True
        except UserError as error:  # of a run that is to be resumed
            return "--resume" in arguments and arguments[-1] in str(error)
        except SystemExit as ended:  # of --help
            return "--help" in arguments and not ended.code
    return False


def test_commands_are_found() -> None:
    found = commands()
    assert len(found) > 60
    assert "continual_train --preset smoke" in found
    assert f"hebbian_evaluate --run {PLACE}" in found
    assert {command.split()[0] for command in found} >= SCRIPTS.keys() - {"quickstart"}


@pytest.mark.parametrize("command", [*commands(), *claimed()])
def test_a_printed_command_is_understood(command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert understood(command), capsys.readouterr().err


def test_a_flag_that_does_not_exist_is_not(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not understood("continual_analyse --run RUN")
