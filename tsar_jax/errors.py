"""Errors that a user can mend."""

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
"""How many there are: a seed is a number below this, so that no two have the same randomness."""


FORBIDDEN = (errno.EACCES, errno.EPERM)
"""Errors of files whose permissions stand in the way."""
DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO),
    *FORBIDDEN,
)
"""Errors of a disk that is full, read-only or broken, or that this user may not write to."""


class UserError(ValueError):
    """Bad input: one sentence that names the offender and the remedy.

    The command line prints the sentence alone and exits with code 2.
    """


class NotThere(UserError):
    """Something is wanted that not every machine has, and that one can do without."""


class DataNotPrepared(NotThere):
    """A data set is wanted that nobody has prepared here."""


class NotInstalled(NotThere):
    """A package is wanted that comes with an extra of this one."""


@contextlib.contextmanager
def doing_without(remedy: str) -> Iterator[None]:
    """Add to the error of data or a package that are not there how to do without.

    Args:
        remedy: such as "--preset smoke needs no data to be prepared".
    """
    try:
        yield
    except NotThere as error:
        raise type(error)(f"{str(error).rstrip('.')}; {remedy}.") from error


def pip() -> str:
    """Return how pip of this very Python is called, wherever it is installed."""
    return f"{quoted(sys.executable or 'python')} -m pip"


def quoted(word: object) -> str:
    """Return a word of a command as the user types it: in quotes where the shell needs them."""
    return shlex.quote(str(word))


def check_known(what: str, name: str, known: Collection[str], otherwise: str = "") -> None:
    """Raises UserError for a name that is none of the known ones.

    Args:
        what: is looked for by the name.
        otherwise: what else will do, or can be done, such as ", or give a leg a length".
    """
    if name not in known:
        raise UserError(
            f"There is no {what} {shown(name)}: choose from {', '.join(known)}{otherwise}"
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
    """Raises UserError where a count among a config's fields is below 1; None is no count."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, but is {value}.")


def check_rates(config: object, *names: str) -> None:
    """Raises UserError where a rate among a config's fields, or one of several, is not positive.

    Neither is infinity, nor no rate at all; None is no rate that is given.
    """
    for name in names:
        value = getattr(config, name)
        if value is None:
            continue
        rates = value if isinstance(value, tuple) else (value,)
        if not rates or not all(0 < rate < float("inf") for rate in rates):
            raise UserError(f"{name} must be positive, but is {value}.")


def checked_seed(name: str, value: Any, count: int = 1) -> int:
    """Return the first of `count` seeds that follow each other as an int.

    Args:
        name: what the user calls it.
        value: an integer of Python or NumPy.

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
        count: how many seeds follow each other from it on.
    """
    object.__setattr__(config, name, checked_seed(name, getattr(config, name), count))


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


SIDE = 28
"""Height and width of the images that networks for Omniglot take."""


def check_side(what: str, size: tuple[int, ...]) -> None:
    """Raises UserError for images of another height and width than `SIDE`. what: they are."""
    if size != (SIDE, SIDE):
        raise UserError(
            f"{what} are {'x'.join(map(str, size))}, but the networks take {SIDE}x{SIDE}: "
            "prepare them at that size."
        )


MAX_TEXT = 80
"""Characters of a text from outside in a message."""
MAX_MESSAGE = 4000
"""Characters of a whole message or line."""
MAX_SHOWN = 300
"""Of a value from outside in a message."""
MAX_ITEMS, MAX_SHOWN_DEPTH = 10, 3
"""Items of a list, and lists within each other, that a message shows."""
MAX_BITS = 256
"""Of an integer that a message shows; Python refuses to write very long ones at all."""


def escaped(text: str, most: int | None = None) -> str:
    """Return a line of text with everything escaped that could steer a terminal.

    Messages name what files contain, and a file may come from anywhere.

    Args:
        text: from outside.
        most: characters of it that are kept; None: all.
    """
    if most is not None and len(text) > most:
        text = text[: most - 3] + "..."
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def bare(value: object) -> str:
    """Return what a file says for a line of output, shortened and escaped: a text without quotes.

    It is as `shown` has it where it is no text.
    """
    return escaped(value, MAX_TEXT) if isinstance(value, str) else shown(value)


def shown(value: object) -> str:
    """Return a value from outside as Python writes it, shortened and escaped.

    Lists and dictionaries are shown to a few items and levels, so that one whose items are shared
    or deep ends as soon as any other; of an object of another class only the class is named.
    """
    return escaped(_shown(value, 0), MAX_SHOWN)


def _shown(value: object, depth: int) -> str:
    if isinstance(value, str | bytes | bytearray):
        # Cut first: what follows takes time and memory in proportion.
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
