"""Errors that a user can mend."""

import contextlib
import difflib
import re
import shlex
import sys
from collections.abc import Collection, Iterator


class UserError(Exception):
    """Bad input: one sentence that names the offender and the remedy.

    The command line prints the sentence alone and exits with code 2.
    """


class DataNotPrepared(UserError):
    """A data set is wanted that nobody has prepared here."""


@contextlib.contextmanager
def without_data(remedy: str) -> Iterator[None]:
    """Add to the error of a data set that is not prepared how to do without it.

    Args:
        remedy: such as "--preset smoke needs no data to be prepared".
    """
    try:
        yield
    except DataNotPrepared as error:
        raise DataNotPrepared(f"{str(error).rstrip('.')}; {remedy}.") from error


def pip() -> str:
    """Return how pip of this very Python is called, wherever it is installed."""
    return f"{shlex.quote(sys.executable or 'python')} -m pip"


def check_known(what: str, name: str, known: Collection[str]) -> None:
    """Raises UserError for a name that is none of the known ones. what: is looked for by it."""
    if name not in known:
        raise UserError(
            f"There is no {what} {name!r}: choose from {', '.join(known)}"
            f"{nearest_hint(name, known)}."
        )


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the known name most like another one, whatever its case and its signs; or None."""
    plain = {re.sub(r"[\W_]+", "", one).lower(): one for one in known}
    wanted = re.sub(r"[\W_]+", "", name).lower()
    found = difflib.get_close_matches(wanted, list(plain), n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def nearest_hint(name: str, known: Collection[str]) -> str:
    """Return "; the nearest is NAME", or nothing where none is near: the end of a sentence."""
    found = nearest(name, known)
    return "" if found is None else f"; the nearest is {found}"


def check_positive(config: object, *names: str) -> None:
    """Raises UserError where a count among a config's fields is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 1, but is {getattr(config, name)}.")


def check_rates(config: object, *names: str) -> None:
    """Raises UserError where a rate among a config's fields, or one of several, is not positive.

    Neither is infinity, nor no rate at all.
    """
    for name in names:
        value = getattr(config, name)
        rates = value if isinstance(value, tuple) else (value,)
        if not rates or not all(0 < rate < float("inf") for rate in rates):
            raise UserError(f"{name} must be positive, but is {value}.")


def check_weights(config: object, *names: str) -> None:
    """Raises UserError where a weight among a config's fields is negative or not finite."""
    for name in names:
        if not 0 <= getattr(config, name) < float("inf"):
            raise UserError(f"{name} must be at least 0, but is {getattr(config, name)}.")


def check_frequencies(config: object, *names: str) -> None:
    """Raises UserError where a probability or decay among a config's fields is not in 0 to 1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise UserError(f"{name} must be from 0 to 1, but is {getattr(config, name)}.")


def check_widths(config: object, name: str) -> None:
    """Raises UserError where one of the layers' widths in a config's field is below 1."""
    widths = getattr(config, name)
    if any(width < 1 for width in widths):
        raise UserError(f"{name} must be widths of at least 1, but is {widths}.")


def check_limits(*limits: tuple[str, int, int, str]) -> None:
    """Raises UserError where a value exceeds its limit. limits: (name, value, limit, of what)."""
    for name, value, limit, what in limits:
        if value > limit:
            raise UserError(f"{name} is {value}, but there are only {limit} {what}: lower it.")


def escaped(text: str) -> str:
    """Return a line of text with everything escaped that could steer a terminal.

    Messages name what files contain, and a file may come from anywhere.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
