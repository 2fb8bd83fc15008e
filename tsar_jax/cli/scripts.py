"""The packages `experiments` and `data_prep`: where they lie, and how their scripts are run.

A repository has them beside `tsar_jax`, an installed wheel within it. Packages of these names in
the user's own folder are never taken for them.
"""

import ast
import importlib
import importlib.util
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tsar_jax.errors import UserError, check_known

PACKAGE = Path(__file__).parent.parent


def folder_of(name: str) -> Path:
    """Return the folder of the package `name`, in tsar_jax or beside it.

    Raises:
        UserError: there is no such folder.
    """
    for parent in (PACKAGE, PACKAGE.parent):
        if (parent / name / "__init__.py").is_file():
            return parent / name
    raise UserError(
        f"The package `{name}` cannot be found: run pip install -e . in the repository."
    )


def experiments() -> dict[str, Path]:
    """Return the scripts of `experiments` by name. Raises UserError where there are none."""
    return {path.stem: path for path in sorted(folder_of("experiments").glob("[!_]*.py"))}


def first_line(script: Path) -> str:
    """Return the first line of a script's docstring, without importing the script."""
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def list_text(first_lines: Mapping[str, str]) -> str:
    """Return one line per experiment. first_lines: of the scripts' docstrings, by name."""
    width = max(map(len, first_lines), default=0)
    return "\n".join(f"{name:{width}}  {line}".rstrip() for name, line in first_lines.items())


def run_experiment(name: str, argv: Sequence[str]) -> None:
    """Run the script `experiments/NAME.py` as `python` would. Raises UserError if unknown."""
    scripts = experiments()
    check_known("experiment", name, scripts)
    sys.argv = [f"tsar-jax run {name}", *argv]
    runpy.run_path(str(scripts[name]), run_name="__main__")


def prepare_data(argv: Sequence[str]) -> int:
    """Run `tsar-jax prepare` with its arguments and return its exit code.

    Raises:
        UserError: the package that prepares data is not there.
    """
    name = "tsar_jax.data_prep"
    if name not in sys.modules:
        folder = folder_of("data_prep")
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    code: int = importlib.import_module(f"{name}.__main__").main(argv)
    return code
