"""Modules of a user's own, imported only where the command line names them.

What a file names is data: a run folder or a rule from elsewhere must not choose which code runs.
"""

import argparse
import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Collection, Sequence
from typing import Any

from tsar_jax.errors import UserError, escaped, quoted, shown


def search_working_folder() -> None:
    """Let Python find modules in the working folder, after everything that is installed.

    A file there that happens to have a library's name would otherwise take its place.
    """
    if "" not in sys.path:
        sys.path.append("")


def import_modules(names: Sequence[str]) -> None:
    """Import modules that the command line names, also from the working folder.

    Raises:
        UserError: one cannot be imported.
    """
    if names:
        search_working_folder()
    for name in names:
        check_module_name(name, "--modules")
        try:
            importlib.import_module(name)
        except UserError:  # what it registers is refused
            raise
        except (ImportError, SyntaxError, TypeError, ValueError) as error:
            raise UserError(
                f"The module {shown(name)} cannot be imported ({error}): name one that Python "
                "finds from here, without .py."
            ) from error


@functools.cache
def import_installed() -> None:
    """Import, once, the modules that installed packages offer in the group "tsar_jax".

    Raises:
        UserError: one cannot be imported.
    """
    for entry in importlib.metadata.entry_points(group="tsar_jax"):
        try:
            importlib.import_module(entry.module)
        except (ImportError, SyntaxError, TypeError, ValueError) as error:
            raise UserError(
                f"The module {shown(entry.module)} of an installed package cannot be imported "
                f"({error}): mend or remove that package."
            ) from error


def check_module_name(name: str, source: object) -> None:
    """Raises UserError for a name that is not dotted identifiers. source: what gives it."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(
            f"{source} names the module {shown(name)}, as no module is called: use names such as "
            "my_rules or my_package.rules."
        )


def check_allowed(wanted: Collection[str], named: Collection[str], source: object) -> None:
    """Check that the command line names the modules that a file wants.

    Args:
        wanted: modules, as data name them.
        named: those that the command line does.
        source: the file or folder.

    Raises:
        UserError: one is not named, or has a name that no module has.
    """
    for name in wanted:
        check_module_name(name, source)
    if set(wanted) <= set(named):
        return
    modules = [escaped(name, 80) for name in list(wanted)[:10]]
    raise UserError(
        f"{source} wants the modules {', '.join(modules)}, whose code would run: if you trust "
        f"them, allow them with --modules {' '.join(map(quoted, modules))}."
    )


def named_modules(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the modules that a command line names with --modules, and its other words."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--modules", nargs="*", default=[])
    own, others = parser.parse_known_args(argv)
    return own.modules, others


def environment_modules(environment: str) -> tuple[str, ...]:
    """Return the module that Gymnasium imports for an environment "module:Name-v0"; else ()."""
    module, colon, _ = environment.partition(":")
    return (module,) if colon else ()


def modules_of(config: Any) -> tuple[str, ...]:
    """Return the modules that a run with a config imports: `modules`, and the environment's."""
    environment = getattr(config, "environment", "")
    return (*getattr(config, "modules", ()), *environment_modules(environment))


def allowing(config: Any) -> str:
    """Return what a command adds to allow the modules of a config: " --modules mine"; or ""."""
    modules = modules_of(config)
    return f" --modules {' '.join(map(quoted, modules))}" if modules else ""
