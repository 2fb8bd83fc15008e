"""Import of a user's own modules, only where the command line names them.

Names in files are data: a run folder or a rule from elsewhere must not choose which code runs.
"""

import argparse
import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Collection, Sequence
from typing import Any

from tsar_jax.errors import MAX_ITEMS, MAX_TEXT, UserError, escaped, quoted, shown


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
        except UserError:  # the module registers something that is refused
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
                f"({error}): fix or remove that package."
            ) from error


def check_module_name(name: str, source: object) -> None:
    """Raise UserError for a name that is not dotted identifiers.

    source: the flag, file or folder that gives the name, for the message.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(
            f"{source} names the module {shown(name)}, as no module is called: use names such as "
            "my_rules or my_package.rules."
        )


def check_allowed(required: Collection[str], allowed: Collection[str], source: object) -> None:
    """Check that the command line allows the modules that a file requires.

    Args:
        required: modules that the file names.
        allowed: modules that the command line names.
        source: the file or folder, for the message.

    Raises:
        UserError: one is not allowed, or is not a module's name.
    """
    for name in required:
        check_module_name(name, source)
    if set(required) <= set(allowed):
        return
    modules = [escaped(name, MAX_TEXT) for name in list(required)[:MAX_ITEMS]]
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
    """Return the module that Gymnasium imports for an environment "module:Name-v0", or ()."""
    module, colon, _ = environment.partition(":")
    return (module,) if colon else ()


def modules_of(config: Any) -> tuple[str, ...]:
    """Return the modules that a run with a config imports: its `modules` and its environment's."""
    environment = getattr(config, "environment", "")
    return (*getattr(config, "modules", ()), *environment_modules(environment))


def allowing(config: Any) -> str:
    """Return the flag that allows the modules of a config, " --modules mine", or ""."""
    modules = modules_of(config)
    return f" --modules {' '.join(map(quoted, modules))}" if modules else ""
