"""What `import tsar_jax` offers, and that the examples do what they say."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import tsar_jax
from tsar_jax.plasticity import rules

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    (checked,) = (
        node
        for node in ast.parse(Path(tsar_jax.__file__).read_text()).body
        if isinstance(node, ast.If)
    )
    imported = {alias.name: line.module for line in checked.body for alias in line.names}
    assert sorted(imported) == sorted(tsar_jax.__all__)
    for name, module in imported.items():
        assert getattr(tsar_jax, name) is getattr(sys.modules[module], name)
    assert set(tsar_jax.__all__) <= set(dir(tsar_jax))
    assert (Path(tsar_jax.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'unrol'"):
        tsar_jax.unrol  # noqa: B018


def test_importing_the_package_imports_no_jax() -> None:
    code = "import sys, tsar_jax; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short_and_improve(path, monkeypatch, capsys, quickly_compiled) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 30
    monkeypatch.setattr(rules.TERMS, "_things", dict(rules.TERMS))  # an example may add one
    runpy.run_path(str(path))
    before, after = map(float, re.findall(r"\d+\.\d+", capsys.readouterr().out)[:2])
    assert after < 0.7 * before
