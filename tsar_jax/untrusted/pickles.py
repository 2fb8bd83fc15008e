"""Pickles, read by a machine that can neither import nor call the names in them.

Python's unpickler imports the names in a pickle and calls them. This one knows only the opcodes
that build plain data. A name stays a `Global`, an object of any class becomes an `Instance` that
stores its arguments and state, and a call is replaced by one of the few functions that the caller
provides.
"""

import dataclasses
import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar, NamedTuple

from tsar_jax.errors import MAX_MESSAGE, MAX_TEXT, escaped, shown

MAX_STEPS = 2_000_000
"""Largest number of opcodes of a pickle; each makes at most one object, so objects are bounded too.
"""

MAX_DEPTH = 500
"""Largest depth of nested objects; Python's own pickler, which recurses, does not write deeper."""

MAX_COPIES = 4
FREE_COPIES = 1 << 20
"""Largest total size of what calls and states are given: MAX_COPIES times the pickle's bytes, and
FREE_COPIES more.

One object may be an argument of every call, so the number of opcodes alone does not bound the
memory that calls copy.
"""

MAX_KEY = 2**60
"""Bound on the absolute value of integer keys; below it no two integers have the same hash, so that
none can be chosen to be slow to find.
"""

MAX_NUMBER_KEYS = 20_000
"""Largest number of items whose key is a number: a file can choose such keys to be slow to find."""


class Global(NamedTuple):
    """A name in a pickle, such as that of a class; nothing is imported."""

    module: str
    name: str


def described(value: Any) -> str:
    """Return a value for a message; a `Global` as module and name."""
    if isinstance(value, Global):
        return f"{escaped(value.module, MAX_TEXT)}.{escaped(value.name, MAX_TEXT)}"
    return shown(value)


Calls = Mapping[tuple[str, str], Callable[..., Any]]
"""Functions that replace those that a pickle calls, by their module and name."""


@dataclasses.dataclass(eq=False)
class Instance:
    """A stand-in for an object of a class that does not exist here.

    kind: name of the class. arguments: arguments of its constructor. state: its attributes, or any
        other state in the pickle. mapping: items of an object that is a dictionary. items: items of
        an object that is a list.
    """

    kind: Global
    arguments: tuple[Any, ...] = ()
    state: Any = None
    mapping: dict[Any, Any] = dataclasses.field(default_factory=dict)
    items: list[Any] = dataclasses.field(default_factory=list)

    def build(self, state: Any) -> None:
        """Store the state that the pickle gives the object."""
        self.state = state


def load(
    stream: BinaryIO,
    calls: Calls,
    *,
    persistent: Callable[[Any], Any] | None = None,
    objects: bool = True,
    strings_as_bytes: bool = False,
) -> Any:
    """Return the value of the pickle at the stream's position, and advance the stream past it.

    Args:
        stream: bytes in memory, so that a length declared in the pickle allocates nothing.
        calls: functions for the calls in the pickle. Their results may have a method `build`, which
            gets the state that the pickle sets.
        persistent: (identifier of something outside the pickle) -> its stand-in.
        objects: whether names and objects of unknown classes may occur, as `Global`, `Instance`.
        strings_as_bytes: whether Python 2's strings are returned as bytes instead of text.

    Raises:
        pickle.UnpicklingError: the pickle needs anything else, or is damaged.
    """
    try:
        return _Machine(calls, persistent, objects, strings_as_bytes).run(stream)
    except pickle.UnpicklingError:
        raise
    # A damaged pickle may give any function any argument, which may raise any exception.
    except Exception as error:
        raise pickle.UnpicklingError(f"{type(error).__name__}: {_error_text(error)}") from error


def _error_text(error: Exception) -> str:
    """Return an error's message, or a general one where it has a value that Python cannot print."""
    try:
        return escaped(str(error), MAX_MESSAGE // 4)
    except (RecursionError, ValueError):
        return "it holds what cannot be written"


_MARK = object()


def check_steps(stream: BinaryIO) -> None:
    """Raise UnpicklingError for a pickle with too many steps or too deep, before it is built.

    An object's depth counts its items at the time when it is put into another object; later items
    do not deepen that one, so that an object may contain its own container.
    """
    depths: list[list[int]] = []
    marks: list[int] = []
    memo: dict[int, list[int]] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count >= MAX_STEPS:
            raise pickle.UnpicklingError(f"it takes more than {MAX_STEPS} steps to build")
        name = opcode.name
        if name in _PUTS:
            number: int = len(memo) if argument is None else argument
            memo[number] = depths[-1]
        elif name in _GETS:
            depths.append(memo[int(argument or 0)])
        elif name == "DUP":
            depths.append(depths[-1])
        elif name == "MARK":
            marks.append(len(depths))
        elif name == "POP" and marks and marks[-1] == len(depths):
            marks.pop()
        elif not opcode.stack_before:
            depths.append([0])
        else:
            _count_depth(opcode, depths, marks)


def _count_depth(opcode: Any, depths: list[list[int]], marks: list[int]) -> None:
    """Update the stack of the objects' depths as an opcode changes the stack of the objects."""
    before, after = opcode.stack_before, opcode.stack_after
    if pickletools.markobject in before:
        if not marks:
            raise pickle.UnpicklingError("it closes what it did not open")
        first = marks.pop()
        # Operands below the mark, such as the list that is appended to, are taken as well.
        first -= before.index(pickletools.markobject)
    else:
        first = len(depths) - len(before)
    if first < 0:
        raise pickle.UnpicklingError("it takes what it did not put")
    operands = depths[first:]
    del depths[first:]
    if not after:
        return
    container, items = (operands[0], operands[1:]) if opcode.name in _FILLING else ([0], operands)
    container[0] = max(container[0], 1 + max((item[0] for item in items), default=-1))
    if container[0] > MAX_DEPTH:
        raise pickle.UnpicklingError(f"it holds objects more than {MAX_DEPTH} deep")
    depths.append(container)


class _Machine:
    """A stack, a memo, and a method for every opcode that builds plain data."""

    def __init__(
        self,
        calls: Calls,
        persistent: Callable[[Any], Any] | None,
        objects: bool,
        strings_as_bytes: bool,
    ) -> None:
        self.calls = calls
        self.persistent = persistent
        self.objects = objects
        self.strings_as_bytes = strings_as_bytes
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copies_left = 0
        self.number_keys = 0

    def run(self, stream: BinaryIO) -> Any:
        start = stream.tell()
        check_steps(stream)
        stream.seek(start)
        self.copies_left = MAX_COPIES * (stream.seek(0, io.SEEK_END) - start) + FREE_COPIES
        stream.seek(start)
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            name = opcode.name
            if name == "STOP":
                (value,) = self.stack
                return value
            if name in _PUTS:
                self._put(argument, count)
            elif name in _LITERALS:
                self.stack.append(argument)
            elif name in self.HANDLERS:
                self.HANDLERS[name](self, argument)
            else:
                raise pickle.UnpicklingError(f"it uses the opcode {name}, which no data need")
        raise pickle.UnpicklingError("it has no end")

    def _put(self, number: int | None, count: int) -> None:
        if number is not None and number > count:
            raise pickle.UnpicklingError(f"it numbers an object {number} after {count} steps")
        self.memo[len(self.memo) if number is None else number] = self.stack[-1]

    def _get(self, number: int) -> None:
        self.stack.append(self.memo[number])

    def _string(self, text: str) -> None:
        self.stack.append(text.encode("latin1") if self.strings_as_bytes else text)

    def _constant(self, value: Any) -> None:
        self.stack.append(value)

    def _pop_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise pickle.UnpicklingError("it closes what it did not open")

    def _pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise pickle.UnpicklingError("it takes what it did not put")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def _tuple(self, count: int | None) -> None:
        self.stack.append(tuple(self._pop_mark() if count is None else self._pop(count)))

    def _append(self, items: list[Any]) -> None:
        top = self.stack[-1]
        target = top.items if isinstance(top, Instance) else top
        if not isinstance(target, list):
            raise pickle.UnpicklingError("it appends to what is no list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        top = self.stack[-1]
        target = top.mapping if isinstance(top, Instance) else top
        if not isinstance(target, dict) or len(items) % 2:
            raise pickle.UnpicklingError("it sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if self._is_key(key):
                target[key] = value

    def _is_key(self, key: Any) -> bool:
        """Return whether a key can be used: hashing or finding some keys could take for ever.

        Where objects may occur, an item with such a key is left out, as an optimiser's state, whose
        keys are parameters; in plain data it is refused.
        """
        if isinstance(key, int | float):
            self.number_keys += 1
            if self.number_keys > MAX_NUMBER_KEYS:
                raise pickle.UnpicklingError(f"more than {MAX_NUMBER_KEYS} keys in it are numbers")
        plain = isinstance(key, str | bytes | float | bool | Global) or key is None
        if plain or (isinstance(key, int) and abs(key) < MAX_KEY):
            return True
        if self.objects:
            return False
        raise pickle.UnpicklingError(f"it has a key of a dictionary that is {described(key)}")

    def _charge(self, argument: Any) -> None:
        """Count the size of a call's arguments or of a state, one level deep, as copied."""
        values = (argument, *argument) if isinstance(argument, tuple) else (argument,)
        sized = (str, bytes, bytearray, list, tuple, dict)
        self.copies_left -= sum(len(value) for value in values if isinstance(value, sized))
        if self.copies_left < 0:
            raise pickle.UnpicklingError("it hands the same objects to too many calls")

    def _dict(self) -> None:
        items = self._pop_mark()
        self.stack.append({})
        self._set(items)

    def _name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("it names what is no text")
        if not self.objects and (module, name) not in self.calls:
            text = described(Global(module, name))
            raise pickle.UnpicklingError(f"it asks for {text}, which no array needs")
        self.stack.append(Global(module, name))

    def _call(self) -> None:
        function, arguments = self._pop(2)
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it calls what is no function")
        if function not in self.calls:
            raise pickle.UnpicklingError(
                f"it asks to call {described(function)}, which no weights need"
            )
        self._charge(arguments)
        self.stack.append(self.calls[function](*arguments))

    def _new(self, count: int) -> None:
        kind, arguments, *_ = self._pop(count)
        if not isinstance(kind, Global) or not isinstance(arguments, tuple) or not self.objects:
            raise pickle.UnpicklingError("it makes an object of what is no class")
        self.stack.append(Instance(kind, arguments))

    def _build(self) -> None:
        (state,) = self._pop(1)
        target = self.stack[-1]
        self._charge(state)
        if hasattr(target, "build"):
            target.build(state)
        elif not isinstance(target, dict):  # an OrderedDict's state holds no items
            raise pickle.UnpicklingError("it gives a state to what has none")

    def _persistent(self, identifier: Any) -> None:
        if self.persistent is None:
            raise pickle.UnpicklingError("it asks for something that lies outside of it")
        self._charge(identifier)
        self.stack.append(self.persistent(identifier))

    HANDLERS: ClassVar[dict[str, Callable[["_Machine", Any], Any]]] = {
        "PROTO": lambda m, _: None,
        "FRAME": lambda m, _: None,
        "NONE": lambda m, _: m._constant(None),
        "NEWTRUE": lambda m, _: m._constant(True),
        "NEWFALSE": lambda m, _: m._constant(False),
        "STRING": lambda m, text: m._string(text),
        "BINSTRING": lambda m, text: m._string(text),
        "SHORT_BINSTRING": lambda m, text: m._string(text),
        "MARK": lambda m, _: m._constant(_MARK),
        "POP": lambda m, _: m._pop(1),
        "POP_MARK": lambda m, _: m._pop_mark(),
        "DUP": lambda m, _: m._constant(m.stack[-1]),
        "GET": lambda m, number: m._get(number),
        "BINGET": lambda m, number: m._get(number),
        "LONG_BINGET": lambda m, number: m._get(number),
        "EMPTY_LIST": lambda m, _: m._constant([]),
        "EMPTY_SET": lambda m, _: m._constant([]),
        "EMPTY_DICT": lambda m, _: m._constant({}),
        "EMPTY_TUPLE": lambda m, _: m._constant(()),
        "LIST": lambda m, _: m._constant(m._pop_mark()),
        "FROZENSET": lambda m, _: m._constant(m._pop_mark()),
        "DICT": lambda m, _: m._dict(),
        "TUPLE": lambda m, _: m._tuple(None),
        "TUPLE1": lambda m, _: m._tuple(1),
        "TUPLE2": lambda m, _: m._tuple(2),
        "TUPLE3": lambda m, _: m._tuple(3),
        "APPEND": lambda m, _: m._append(m._pop(1)),
        "APPENDS": lambda m, _: m._append(m._pop_mark()),
        "ADDITEMS": lambda m, _: m._append(m._pop_mark()),
        "SETITEM": lambda m, _: m._set(m._pop(2)),
        "SETITEMS": lambda m, _: m._set(m._pop_mark()),
        "GLOBAL": lambda m, both: m._name(*both.split(" ", 1)),
        "STACK_GLOBAL": lambda m, _: m._name(*m._pop(2)),
        "REDUCE": lambda m, _: m._call(),
        "NEWOBJ": lambda m, _: m._new(2),
        "NEWOBJ_EX": lambda m, _: m._new(3),
        "BUILD": lambda m, _: m._build(),
        "PERSID": lambda m, text: m._persistent(text),
        "BINPERSID": lambda m, _: m._persistent(m._pop(1)[0]),
    }


_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_FILLING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_LITERALS = {
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
