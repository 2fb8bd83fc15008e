"""Files of `torch.save`, read without PyTorch and without running code that they name.

Both formats are read: a zip archive (data.pkl, and data/KEY for every storage), and the older one,
five pickles and then the storages. They may hold whole modules, whose classes need not exist here,
or state dictionaries, from any device. A single pickle, as of NumPy arrays, is read too.
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
"""The first two values of a file in the older format."""
MAX_PICKLE = 1 << 26
"""Largest size of a file's pickles in bytes; the weights of a network lie outside of them."""
CHECKPOINT = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which a checkpoint may have its network, in the order in which they are tried."""
MAX_NAMES = 20_000
"""Largest number of arrays of a file."""
MAX_NAME = 1000
"""Largest number of characters of an array's name."""
MAX_VISITED = 5 * MAX_NAMES
"""Largest number of modules and of their entries, many of which are no arrays."""
MAX_DEPTH = 50
"""Largest depth of the tree of a network's modules."""
MAX_RATIO = 8
"""Largest size of all arrays as a multiple of the file's, for arrays may share a storage."""


class Content(NamedTuple):
    """The content of a file.

    arrays: arrays by name, in the file's order. attributes: attributes of a whole module by name,
        {} for anything else.
    """

    arrays: dict[str, np.ndarray]
    attributes: dict[str, Any]


def read_arrays(path: Path) -> Content:
    """Return the arrays in a file by the names of a state dictionary.

    Arrays of a list are named 0, 1, ..., a single array 0.

    Raises:
        UserError: there is no such file, it is damaged or cut short, needs a call that weights do
            not, or holds no arrays.
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
        value = load(pickled, CALLS, persistent=_storage_loader({}))

        def storage_bytes(storage: Storage) -> bytes:
            return member_bytes(f"data/{storage.key}", size)

        return _content(path, value, storage_bytes, order, size)


def _read_stream(path: Path, file: BinaryIO, size: int) -> Content:
    """Return the content of a file in the older format, or of a single pickle."""
    head = io.BytesIO(file.read(MAX_PICKLE))
    first = load(head, CALLS, persistent=_storage_loader({}))
    if first != MAGIC:
        return _content(path, first, _no_storage, "<", size)
    protocol, system = load(head, CALLS), load(head, CALLS)
    little = isinstance(system, dict) and system.get("little_endian") is True
    if protocol != PROTOCOL or not little:
        raise pickle.UnpicklingError("its protocol is unknown, or its machine was big-endian")
    storages: dict[str, Storage] = {}
    value = load(head, CALLS, persistent=_storage_loader(storages))
    keys = load(head, CALLS)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise pickle.UnpicklingError("it does not list its storages")
    ranges = _find_storages(file, head.tell(), size, keys, storages)

    def storage_bytes(storage: Storage) -> bytes:
        if storage.key not in ranges:
            raise pickle.UnpicklingError(f"its storage {storage.key} is missing")
        start, length = ranges[storage.key]
        file.seek(start)
        return file.read(length)

    return _content(path, value, storage_bytes, "<", size)


def _find_storages(
    file: BinaryIO, position: int, size: int, keys: list[str], storages: Mapping[str, Storage]
) -> dict[str, tuple[int, int]]:
    """Return position and number of bytes of each storage; they follow each other in the file.

    Before each stands the number of its elements, in 8 bytes.
    """
    ranges = {}
    for key in keys:
        if key not in storages:
            raise pickle.UnpicklingError(f"its storage {key} belongs to nothing")
        file.seek(position)
        (count,) = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
        length = count * storages[key].dtype.itemsize
        if not 0 <= length <= size - position - 8:
            raise pickle.UnpicklingError("it is cut short")
        ranges[key] = position + 8, length
        position += 8 + length
    return ranges


def _as_storage(identifier: Any) -> Any:
    """Return the storage of an identifier, or the class of a module that comes with its source."""
    if isinstance(identifier, tuple) and identifier:
        kind, *rest = identifier
        if kind == "module" and rest and isinstance(rest[0], Global):
            return rest[0]
        if kind == "storage" and len(rest) in (4, 5):
            return Storage.declared(*rest)
    raise pickle.UnpicklingError("it asks for something outside of it that is no storage")


def _storage_loader(storages: dict[str, Storage]) -> Callable[[Any], Any]:
    """Return the function for a pickle's references, which adds each storage to `storages` by key.

    It refuses a storage that the file describes in two ways.
    """

    def add_storage(identifier: Any) -> Any:
        target = _as_storage(identifier)
        if isinstance(target, Storage):
            first = storages.setdefault(target.key, target)
            if (first.dtype, first.count) != (target.dtype, target.count):
                raise pickle.UnpicklingError(f"it describes its storage {target.key} in two ways")
        return target

    return add_storage


def _no_storage(storage: Storage) -> bytes:
    raise pickle.UnpicklingError("its tensors have no storages")


ReadStorage = Callable[[Storage], bytes]


def _content(path: Path, value: Any, read: ReadStorage, order: str, size: int) -> Content:
    """Return the arrays of an unpickled value, each read and checked against its storage."""
    value, named = _network(value)
    if not named:
        raise UserError(f"{path} holds no arrays: name a file with a network's weights.")
    # Every array may claim a whole storage, so that all together may be many times the file.
    storages = {
        tensor.storage.key: tensor.storage.nbytes
        for tensor in named.values()
        if isinstance(tensor, Tensor)
    }
    total = sum(tensor.nbytes for tensor in named.values())
    if total > MAX_RATIO * size or sum(storages.values()) > size:
        raise pickle.UnpicklingError("it declares arrays that are larger than the file")
    buffers: dict[str, np.ndarray] = {}

    def read_array(tensor: Tensor | NumpyArray) -> np.ndarray:
        if isinstance(tensor, NumpyArray):
            return tensor.array
        storage = tensor.storage
        if storage.key not in buffers:
            data = read(storage)
            if len(data) != storage.nbytes:
                raise pickle.UnpicklingError(
                    f"its storage {storage.key} has {len(data)} bytes, not {storage.nbytes}"
                )
            buffers[storage.key] = np.frombuffer(data, np.uint8)
        return tensor.read(buffers[storage.key], order)

    arrays = {name: read_array(tensor) for name, tensor in named.items()}
    return Content(arrays, _attributes(value))


def _network(value: Any) -> tuple[Any, dict[str, Tensor | NumpyArray]]:
    """Return the network within a value and its arrays; a checkpoint holds other arrays too."""
    for name in CHECKPOINT if isinstance(value, dict) else ():
        inner = value.get(name)
        if isinstance(inner, dict | list | tuple | Instance):
            named = named_tensors(inner)
            if named:
                return inner, named
    return value, named_tensors(value)


def _attributes(value: Any) -> dict[str, Any]:
    state = value.state if isinstance(value, Instance) else None
    if not isinstance(state, dict):
        return {}
    return {name: attribute for name, attribute in state.items() if isinstance(name, str)}


def named_tensors(value: Any) -> dict[str, Tensor | NumpyArray]:
    """Return the arrays of a module, a state dictionary, a list or a single array, by name.

    Raises:
        pickle.UnpicklingError: there are too many arrays or modules, a name is too long, or modules
            contain each other.
    """
    tensors: dict[str, Tensor | NumpyArray] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, Tensor | NumpyArray):
            tensors[name] = item
            if len(name) > MAX_NAME:
                raise pickle.UnpicklingError(f"a name in it has more than {MAX_NAME} characters")
            if len(tensors) > MAX_NAMES:
                raise pickle.UnpicklingError(f"it has more than {MAX_NAMES} arrays")

    if isinstance(value, Instance):
        _walk(value, "", 0, add, [0])
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(name, str | int):
                add(str(name), item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            add(str(index), item)
    else:
        add("0", value)
    return tensors


def _walk(
    module: Instance, prefix: str, depth: int, add: Callable[[str, Any], None], visited: list[int]
) -> None:
    """Add a module's parameters, buffers and submodules in the order of a state dictionary.

    Args:
        module: the module.
        prefix: prefix of its names.
        depth: depth of the module in the tree, from 0.
        add: (name, parameter or buffer) -> None.
        visited: [number of modules and entries so far], which is updated.
    """
    state = module.state if isinstance(module.state, dict) else {}
    parts = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
    parameters, buffers, modules = (part if isinstance(part, dict) else {} for part in parts)
    # A module that occurs several times is walked and counted each time.
    visited[0] += 1 + len(parameters) + len(buffers) + len(modules)
    if depth > MAX_DEPTH or visited[0] > MAX_VISITED or len(prefix) > MAX_NAME:
        raise pickle.UnpicklingError("its modules have no end")

    for name, item in [*parameters.items(), *buffers.items()]:
        if isinstance(name, str):
            add(prefix + name, item)
    for name, submodule in modules.items():
        if isinstance(name, str) and isinstance(submodule, Instance):
            _walk(submodule, f"{prefix}{name}.", depth + 1, add, visited)
