"""Errors that a user can fix, checks of values, and values in messages."""

import contextlib
import difflib
import errno
import itertools
import operator
import re
import shlex
import sys
from collections.abc import Collection, Iterator
from typing import Any

SEEDS = 2**32
"""Number of seeds: all are below it, so that no two have the same randomness."""

FORBIDDEN = (errno.EACCES, errno.EPERM)
"""Error numbers of files whose permissions forbid their use."""
DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO),
    *FORBIDDEN,
)
"""Error numbers of a disk that is full, read-only or broken, or that this user may not write."""


class UserError(ValueError):
    """An invalid input, described in one sentence that names what is wrong and the remedy.

    The command line prints the sentence alone and exits with code 2.
    """


class ProcessLost(Exception):
    """The loss of another process of the training; the command exits 1."""


class Unavailable(UserError):
    """A lack of something that not every machine has, and that one can do without."""


class DataNotPrepared(Unavailable):
    """A lack of a data set that has not been prepared on this machine."""


class NotInstalled(Unavailable):
    """A lack of a package that comes with one of this package's extras."""


def missing_extra(what: str, needed: str, extra: str) -> NotInstalled:
    """Return the error for packages, `needed` by something, that come with an extra."""
    return NotInstalled(f'{what} needs {needed}: {pip()} install "tsar_jax[{extra}]".')


@contextlib.contextmanager
def doing_without(remedy: str) -> Iterator[None]:
    """Add an alternative to the message of an `Unavailable` error raised in the block.

    Args:
        remedy: the alternative, such as "--preset smoke needs no data to be prepared".
    """
    try:
        yield
    except Unavailable as error:
        raise type(error)(f"{str(error).rstrip('.')}; {remedy}.") from error


def pip() -> str:
    """Return the command that calls the pip of this Python."""
    return f"{quoted(sys.executable or 'python')} -m pip"


def quoted(word: object) -> str:
    """Return a word of a command, in quotes where the shell needs them."""
    return shlex.quote(str(word))


def check_known(kind: str, name: str, known: Collection[str], otherwise: str = "") -> None:
    """Raise UserError for a name that is not among the known ones.

    Args:
        kind: what the names are names of, for the message.
        name: the name.
        known: all names.
        otherwise: a further remedy, such as ", or give a leg a length".
    """
    if name not in known:
        raise UserError(
            f"There is no {kind} {shown(name)}: choose from {', '.join(known)}{otherwise}"
            f"{nearest_hint(name, known)}."
        )


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the known name that is most like `name` but for case and punctuation, or None."""
    plain = {re.sub(r"[\W_]+", "", known_name).lower(): known_name for known_name in known}
    plain_name = re.sub(r"[\W_]+", "", name).lower()
    matches = difflib.get_close_matches(plain_name, list(plain), n=1)
    return plain[matches[0]] if matches else None


def nearest_hint(name: str, known: Collection[str]) -> str:
    """Return "; the nearest is NAME" as the end of a sentence, or "" where none is near."""
    hint = nearest(name, known)
    return "" if hint is None else f"; the nearest is {hint}"


def check_positive(config: object, *names: str) -> None:
    """Raise UserError where one of a config's counts, its fields `names`, is below 1.

    None passes.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, but is {value}.")


def check_rates(config: object, *names: str) -> None:
    """Raise UserError where one of a config's rates, its fields `names`, is not in (0, inf).

    A field may be a tuple of rates, which must not be empty. None passes.
    """
    for name in names:
        value = getattr(config, name)
        if value is None:
            continue
        rates = value if isinstance(value, tuple) else (value,)
        if not rates or not all(0 < rate < float("inf") for rate in rates):
            raise UserError(f"{name} must be positive, but is {value}.")


def checked_seed(name: str, value: Any, count: int = 1) -> int:
    """Return the first of `count` consecutive seeds as an int.

    Args:
        name: the argument's name, for messages.
        value: an integer of Python or NumPy.
        count: number of seeds.

    Raises:
        UserError: it is no integer, or one of the seeds is not in [0, 2**32).
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        seed = operator.index(value)
    except TypeError:
        raise UserError(f"{name} must be an integer in [0, 2**32), but is {value!r}.") from None
    if not 0 <= seed < SEEDS:
        raise UserError(f"{name} must be in [0, 2**32), but is {seed}: choose another.")
    if seed + count > SEEDS:
        raise UserError(
            f"{name} is {seed}, and the last of {count} seeds from there, {seed + count - 1}, is "
            f"not below 2**32: choose at most {SEEDS - count}."
        )
    return seed


def check_seed(config: Any, name: str = "seed", count: int = 1) -> None:
    """Check a seed among a config's fields as `checked_seed` does, and make it an int.

    Args:
        config: a dataclass, frozen or not.
        name: the field.
        count: number of consecutive seeds, of which it is the first.
    """
    object.__setattr__(config, name, checked_seed(name, getattr(config, name), count))


def check_weights(config: object, *names: str) -> None:
    """Raise UserError where one of a config's weights, its fields `names`, is negative or not
    finite.
    """
    for name in names:
        if not 0 <= getattr(config, name) < float("inf"):
            raise UserError(f"{name} must be at least 0, but is {getattr(config, name)}.")


def check_frequencies(config: object, *names: str) -> None:
    """Raise UserError where one of a config's fields `names`, probabilities or decays, is not in
    [0, 1].
    """
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise UserError(f"{name} must be from 0 to 1, but is {getattr(config, name)}.")


def check_widths(config: object, name: str) -> None:
    """Raise UserError where one of the layers' widths in a config's field `name` is below 1."""
    widths = getattr(config, name)
    if any(width < 1 for width in widths):
        raise UserError(f"{name} must be widths of at least 1, but is {widths}.")


def check_limits(*limits: tuple[str, int, int, str]) -> None:
    """Raise UserError where a value exceeds its limit.

    limits: (name of the value, value, limit, name of the things that are limited).
    """
    for name, value, limit, things in limits:
        if value > limit:
            raise UserError(f"{name} is {value}, but there are only {limit} {things}: lower it.")


SIDE = 28
"""Height and width of the images that networks for Omniglot take."""


def check_side(images: str, size: tuple[int, ...]) -> None:
    """Raise UserError unless images have `SIDE` as height and width.

    Args:
        images: description of the images, for the message.
        size: their height and width.
    """
    if size != (SIDE, SIDE):
        raise UserError(
            f"{images} are {'x'.join(map(str, size))}, but the networks take {SIDE}x{SIDE}: "
            "prepare them at that size."
        )


MAX_TEXT = 80
"""Largest number of characters of a text from outside in a message."""
MAX_MESSAGE = 4000
"""Largest number of characters of a whole message or line."""
MAX_SHOWN = 300
"""Largest number of characters of a value from outside in a message."""
MAX_ITEMS, MAX_SHOWN_DEPTH = 10, 3
"""Largest number of a list's items, and depth of nested lists, in a message."""
MAX_BITS = 256
"""Largest number of bits of an integer in a message; Python refuses to write very long ones."""


def escaped(text: str, most: int | None = None) -> str:
    """Return a line of text with all control characters escaped, which could steer a terminal.

    Messages quote files, and a file may come from anywhere.

    Args:
        text: the text, from outside.
        most: largest number of characters that are kept; None: all.
    """
    if most is not None and len(text) > most:
        text = text[: most - 3] + "..."
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def bare(value: object) -> str:
    """Return a value from outside for a line of output, shortened and escaped.

    A text stands without quotes, anything else as in `shown`.
    """
    return escaped(value, MAX_TEXT) if isinstance(value, str) else shown(value)


def shown(value: object) -> str:
    """Return the repr of a value from outside, shortened and escaped.

    Lists and dictionaries are cut to a few items and levels, so that one with shared or deep items
    takes no longer than others; for an object of another class only the class is named.
    """
    return escaped(_shown(value, 0), MAX_SHOWN)


def _shown(value: object, depth: int) -> str:
    if isinstance(value, str | bytes | bytearray):
        # Cut first, for repr takes time and memory in proportion to the length.
        cut = value[: MAX_TEXT + 1]
        return repr(cut) if len(cut) <= MAX_TEXT else repr(cut[: MAX_TEXT - 3]) + "..."
    if value is None or isinstance(value, bool | float | complex):
        return repr(value)
    if isinstance(value, int):
        bits = value.bit_length()
        return repr(value) if bits <= MAX_BITS else f"an integer of {bits} bits"
    if isinstance(value, list | tuple | dict):
        return _shown_items(value, depth)
    return f"a {type(value).__name__[:MAX_TEXT]}"


def _shown_items(value: list[Any] | tuple[Any, ...] | dict[str, Any], depth: int) -> str:
    if len(value) and depth == MAX_SHOWN_DEPTH:
        return f"a {type(value).__name__} of {len(value)} items"
    first = itertools.islice(value, MAX_ITEMS)
    if isinstance(value, dict):
        items = [f"{_shown(key, depth + 1)}: {_shown(value[key], depth + 1)}" for key in first]
    else:
        items = [_shown(item, depth + 1) for item in first]
    if len(value) > MAX_ITEMS:
        items.append("...")
    inner = ", ".join(items)
    if isinstance(value, tuple):
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return f"{{{inner}}}" if isinstance(value, dict) else f"[{inner}]"
