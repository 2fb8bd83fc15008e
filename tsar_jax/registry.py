"""Things of one kind by name, to which a module of the user's own adds more."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tsar_jax.errors import UserError, check_known
from tsar_jax.modules import import_installed

Thing = TypeVar("Thing")
AnyThing = TypeVar("AnyThing", bound=Any)


class Registry(Mapping[str, Thing]):
    """A mapping from names to things, which is added to by `register` alone.

    A name that it lacks is looked for once more after importing the modules that installed packages
    offer as entry points of the group "tsar_jax".

    Args:
        kind: what the things are, for the sentences of errors.
    """

    def __init__(self, kind: str):
        self._kind = kind
        self._things: dict[str, Thing] = {}

    def register(self, name: str) -> Callable[[AnyThing], AnyThing]:
        """Return a decorator that adds a thing under a name.

        Defined anew by the same module, as on a reload, a thing replaces itself.

        Raises:
            UserError: another module has taken the name.
        """

        def add(thing: AnyThing) -> AnyThing:
            taken = self._things.get(name)
            if taken is not None and _module_of(taken) != _module_of(thing):
                raise UserError(f"There is a {self._kind} {name!r} already: choose another name.")
            self._things[name] = thing
            return thing

        return add

    def find(self, name: str) -> Thing:
        """Return what has a name. Raises UserError where nothing has."""
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
    return getattr(thing, "__module__", None)
