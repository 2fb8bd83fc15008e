"""Registries of things by name, such as environments, which users' own modules extend."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tsar_jax.errors import UserError, check_known
from tsar_jax.modules import import_installed

Thing = TypeVar("Thing")
AnyThing = TypeVar("AnyThing", bound=Any)


class Registry(Mapping[str, Thing]):
    """A mapping from names to things, extended by `register` alone.

    `find` imports the modules that installed packages offer as entry points of the group "tsar_jax"
    before it gives up on a name.

    Args:
        kind: kind of the things, for error messages.
    """

    def __init__(self, kind: str):
        self._kind = kind
        self._things: dict[str, Thing] = {}

    def register(self, name: str) -> Callable[[AnyThing], AnyThing]:
        """Return a decorator that adds a thing under a name.

        A module that registers a name again, as on a reload, replaces its thing.

        Raises:
            UserError: another module has taken the name.
        """

        def add(thing: AnyThing) -> AnyThing:
            previous = self._things.get(name)
            if previous is not None and _module_of(previous) != _module_of(thing):
                raise UserError(f"There is a {self._kind} {name!r} already: choose another name.")
            self._things[name] = thing
            return thing

        return add

    def find(self, name: str) -> Thing:
        """Return the thing of a name. Raises UserError where there is none."""
        if name not in self._things:
            import_installed()
        otherwise = ", or import the module that defines it (--modules)"
        check_known(self._kind, name, self._things, otherwise)
        return self._things[name]

    def __getitem__(self, name: str) -> Thing:
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)


def _module_of(thing: Any) -> str | None:
    while isinstance(thing, functools.partial):
        thing = thing.func
    return getattr(thing, "__module__", None)
