"""Errors that a user can mend."""

from collections.abc import Collection


class UserError(Exception):
    """Bad input: one sentence that names the offender and the remedy.

    The command line prints the sentence alone and exits with code 2.
    """


def check_known(what: str, name: str, known: Collection[str]) -> None:
    """Raises UserError for a name that is none of the known ones. what: is looked for by it."""
    if name not in known:
        raise UserError(f"There is no {what} {name!r}: choose from {', '.join(known)}.")


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
