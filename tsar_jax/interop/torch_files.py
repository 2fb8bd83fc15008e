"""What `torch.save` wrote, read without PyTorch and without running what a file asks for.

Both formats: a zip archive (data.pkl, and data/KEY for every storage), and the older one, five
pickles and then the storages. Whole modules, whose classes need not exist here, as well as state
dictionaries, from any device. A pickle alone, of NumPy arrays say, is read too.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tsar_jax.errors import UserError
from tsar_jax.interop.stand_ins import CALLS, NumpyArray, Storage, Tensor
from tsar_jax.untrusted.files import open_regular
from tsar_jax.untrusted.pickles import Global, Instance, load
from tsar_jax.untrusted.zips import open_zip, read_member, refused, zip_members

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_PICKLE = 1 << 26
"""Bytes of a file's pickles at most; the weights of a network lie outside of them."""
CHECKPOINT = ("state_dict", "model_state_dict", "model", "net")
"""Under which of them a checkpoint keeps its network."""
MAX_NAMES = 20_000
MAX_NAME = 1000
"""Characters of an array's name."""
MAX_VISITED = 5 * MAX_NAMES
"""Modules, and entries of modules, of which many are no arrays."""
MAX_DEPTH = 50
"""Of the tree of a network's modules."""


class Content(NamedTuple):
    """What a file holds. arrays: by name, in the file's order. attributes: of a whole module."""

    arrays: dict[str, np.ndarray]
    attributes: dict[str, Any]


def read_arrays(path: Path) -> Content:
    """Return the arrays that a file holds, by a state dictionary's names.

    Arrays of a list are named 0, 1, ..., an array alone 0.

    Raises:
        UserError: there is no such file, it is damaged or cut short, it asks for a call, or it
            holds no arrays.
    """
    with open_regular(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            if file.read(4) == b"PK\3\4":
                return _read_zip(path, file, size)
            file.seek(0)
            return _read_stream(path, file, size)
        except pickle.UnpicklingError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path} cannot be used, for it is damaged or does not hold weights alone "
                f"({reason}): name a file of torch.save."
            ) from error


def _read_zip(path: Path, file: BinaryIO, size: int) -> Content:
    with open_zip(path, file) as archive:
        listed = zip_members(archive, size)
        if len({member.filename.partition("/")[0] for member in listed}) > 1:
            raise pickle.UnpicklingError("its members lie in more than one folder")
        members = {member.filename.partition("/")[2]: member for member in listed}
        if "data.pkl" not in members:
            raise UserError(f"{path} is no file of torch.save, for it has no data.pkl: name one.")
        for member in members.values():
            if member.compress_type != zipfile.ZIP_STORED:
                raise refused(str(path), member.filename, "it is compressed")

        def member_bytes(name: str, most: int) -> bytes:
            if name not in members:
                raise pickle.UnpicklingError(f"its member {name} is missing")
            if members[name].file_size > most:
                raise pickle.UnpicklingError(f"its member {name} is of more than {most} bytes")
            return read_member(archive, members[name])

        order = "<"
        if "byteorder" in members:
            order = {b"little": "<", b"big": ">"}.get(member_bytes("byteorder", 16).strip(), "")
        if not order:
            raise pickle.UnpicklingError("its byte order is neither little nor big")
        pickled = io.BytesIO(member_bytes("data.pkl", MAX_PICKLE))
        value = load(pickled, CALLS, persistent=_keeping({}))

        def storage_bytes(storage: Storage) -> bytes:
            return member_bytes(f"data/{storage.key}", size)

        return _content(path, value, storage_bytes, order, size)


def _read_stream(path: Path, file: BinaryIO, size: int) -> Content:
    """Of a file in the older format, or of one pickle."""
    head = io.BytesIO(file.read(MAX_PICKLE))
    first = load(head, CALLS, persistent=_keeping({}))
    if first != MAGIC:
        return _content(path, first, _no_storage, "<", size)
    protocol, system = load(head, CALLS), load(head, CALLS)
    little = isinstance(system, dict) and system.get("little_endian") is True
    if protocol != PROTOCOL or not little:
        raise pickle.UnpicklingError("its protocol is unknown, or its machine was big-endian")
    storages: dict[str, Storage] = {}
    value = load(head, CALLS, persistent=_keeping(storages))
    keys = load(head, CALLS)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise pickle.UnpicklingError("it does not list its storages")
    places = _find_storages(file, head.tell(), size, keys, storages)

    def storage_bytes(storage: Storage) -> bytes:
        if storage.key not in places:
            raise pickle.UnpicklingError(f"its storage {storage.key} is missing")
        start, length = places[storage.key]
        file.seek(start)
        return file.read(length)

    return _content(path, value, storage_bytes, "<", size)


def _find_storages(
    file: BinaryIO, place: int, size: int, keys: list[str], storages: Mapping[str, Storage]
) -> dict[str, tuple[int, int]]:
    """Where each storage lies, and of how many bytes it is; they follow each other."""
    places = {}
    for key in keys:
        if key not in storages:
            raise pickle.UnpicklingError(f"its storage {key} belongs to nothing")
        file.seek(place)
        (count,) = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
        length = count * storages[key].dtype.itemsize
        if not 0 <= length <= size - place - 8:
            raise pickle.UnpicklingError("it is cut short")
        places[key] = place + 8, length
        place += 8 + length
    return places


def _as_storage(identifier: Any) -> Any:
    """A storage by what a file calls it; or the class of a module, which comes with its source."""
    if isinstance(identifier, tuple) and identifier:
        kind, *rest = identifier
        if kind == "module" and rest and isinstance(rest[0], Global):
            return rest[0]
        if kind == "storage" and len(rest) in (4, 5):
            return Storage.declared(*rest)
    raise pickle.UnpicklingError("it asks for something outside of it that is no storage")


def _keeping(storages: dict[str, Storage]) -> Callable[[Any], Any]:
    """Return what answers a file's references, each storage being described in one way only.

    storages: filled with them, by key.
    """

    def answer(identifier: Any) -> Any:
        found = _as_storage(identifier)
        if isinstance(found, Storage):
            first = storages.setdefault(found.key, found)
            if (first.dtype, first.count) != (found.dtype, found.count):
                raise pickle.UnpicklingError(f"it describes its storage {found.key} in two ways")
        return found

    return answer


def _no_storage(storage: Storage) -> bytes:
    raise pickle.UnpicklingError("its tensors have no storages")


ReadStorage = Callable[[Storage], bytes]


def _content(path: Path, value: Any, read: ReadStorage, order: str, size: int) -> Content:
    """The arrays in what was unpickled, each read on its own and checked against its storage."""
    value, named = _network(value)
    if not named:
        raise UserError(f"{path} holds no arrays: name a file with a network's weights.")
    # Every array may claim a whole storage, and so, all together, many times the file.
    storages = {h.storage.key: h.storage.nbytes for h in named.values() if isinstance(h, Tensor)}
    if sum(h.nbytes for h in named.values()) > 8 * size or sum(storages.values()) > size:
        raise pickle.UnpicklingError("it declares arrays that are larger than the file")
    buffers: dict[str, np.ndarray] = {}

    def array(held: Tensor | NumpyArray) -> np.ndarray:
        if isinstance(held, NumpyArray):
            return held.array
        storage = held.storage
        if storage.key not in buffers:
            data = read(storage)
            if len(data) != storage.nbytes:
                raise pickle.UnpicklingError(
                    f"its storage {storage.key} has {len(data)} bytes, not {storage.nbytes}"
                )
            buffers[storage.key] = np.frombuffer(data, np.uint8)
        return held.read(buffers[storage.key], order)

    arrays = {name: array(held) for name, held in named.items()}
    return Content(arrays, _attributes(value))


def _network(value: Any) -> tuple[Any, dict[str, Tensor | NumpyArray]]:
    """What holds the network, and its arrays; of a checkpoint, which holds other arrays too."""
    for name in CHECKPOINT if isinstance(value, dict) else ():
        inner = value.get(name)
        if isinstance(inner, dict | list | tuple | Instance):
            named = named_tensors(inner)
            if named:
                return inner, named
    return value, named_tensors(value)


def _attributes(value: Any) -> dict[str, Any]:
    state = value.state if isinstance(value, Instance) else None
    return {k: v for k, v in state.items() if isinstance(k, str)} if isinstance(state, dict) else {}


def named_tensors(value: Any) -> dict[str, Tensor | NumpyArray]:
    """Return the arrays of a module, a state dictionary, a list or an array alone, by name.

    Raises:
        pickle.UnpicklingError: its modules contain each other, or are too many.
    """
    found: dict[str, Tensor | NumpyArray] = {}

    def add(name: str, held: Any) -> None:
        if isinstance(held, Tensor | NumpyArray):
            found[name] = held
            if len(name) > MAX_NAME:
                raise pickle.UnpicklingError(f"a name in it has more than {MAX_NAME} characters")
            if len(found) > MAX_NAMES:
                raise pickle.UnpicklingError(f"it has more than {MAX_NAMES} arrays")

    if isinstance(value, Instance):
        _walk(value, "", 0, add, [0])
    elif isinstance(value, dict):
        for name, held in value.items():
            if isinstance(name, str | int):
                add(str(name), held)
    elif isinstance(value, list | tuple):
        for index, held in enumerate(value):
            add(str(index), held)
    else:
        add("0", value)
    return found


def _walk(
    module: Instance, prefix: str, depth: int, add: Callable[[str, Any], None], visited: list[int]
) -> None:
    """Parameters, then buffers, then those of the submodules, as a state dictionary has them."""
    state = module.state if isinstance(module.state, dict) else {}
    parts = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
    parameters, buffers, modules = (part if isinstance(part, dict) else {} for part in parts)
    # A module that occurs again and again is walked as often, with whatever it holds.
    visited[0] += 1 + len(parameters) + len(buffers) + len(modules)
    if depth > MAX_DEPTH or visited[0] > MAX_VISITED or len(prefix) > MAX_NAME:
        raise pickle.UnpicklingError("its modules have no end")

    for name, held in [*parameters.items(), *buffers.items()]:
        if isinstance(name, str):
            add(prefix + name, held)
    for name, held in modules.items():
        if isinstance(name, str) and isinstance(held, Instance):
            _walk(held, f"{prefix}{name}.", depth + 1, add, visited)
