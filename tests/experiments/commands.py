"""Scripts run within the test's process, as from a command line."""

import sys

import pytest

from tsar_jax import cli


def command(script, *arguments, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    script.main()


def failure(script, *arguments, monkeypatch, capsys) -> str:
    """What a command that must end with exit code 2 says."""
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.run_main(script.main)
    assert ended.value.code == 2
    return capsys.readouterr().err
