"""`tsar-jax prepare` and `python -m benchmarks` in any terminal, with errors fit for one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.__main__ import main as run_benchmarks
from data_prep.__main__ import main as prepare
from tsar_jax.cli import exits
from tsar_jax.errors import MAX_MESSAGE

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["data_prep", "benchmarks"])
def test_help_is_printed_whatever_the_width(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    environment = {**os.environ, "COLUMNS": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=600)
    assert done.returncode == 0
    assert b"--help" in done.stdout


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (prepare, ["images", "--name", "mine", "--out", "{out}", "--archives", "{name}"]),
        (run_benchmarks, ["--only", "{name}", "--out", "{out}/a.json"]),
    ],
    ids=["data_prep", "benchmarks"],
)
def test_errors_are_escaped_and_shortened(
    main: Callable[[list[str]], int],
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "a\x1b[31m/\n" + "long/" * 2000
    given = [text.format(out=tmp_path / "out", name=name) for text in arguments]
    assert main(given) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert message.rstrip("\n").isprintable()
    # Some characters are escaped after the message is shortened.
    assert len(message) < MAX_MESSAGE + 1000


@pytest.mark.parametrize(
    ("main", "arguments"),
    [(prepare, ["mnist"]), (run_benchmarks, ["--list"])],
    ids=["data_prep", "benchmarks"],
)
def test_the_terminal_is_prepared_and_what_is_printed_checked(
    main: Callable[[list[str]], int],
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = []
    monkeypatch.setattr(exits, "use_utf8", lambda: done.append("utf-8"))
    monkeypatch.setattr(exits, "prepare_terminal", lambda: done.append("terminal"))
    monkeypatch.setattr(
        "data_prep.__main__.tyro.extras.subcommand_cli_from_dict", lambda *_, **__: ""
    )
    for module in ("data_prep.__main__", "benchmarks.__main__"):
        monkeypatch.setattr(f"{module}.check_printed", lambda: done.append("printed"))
    assert main(arguments) == 0
    assert done == ["utf-8", "terminal", "printed"]
