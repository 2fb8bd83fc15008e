"""Files that PyTorch loads, written without it: the zip format of `torch.save`."""

import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tsar_jax.atomic import replacing
from tsar_jax.errors import UserError

STORAGES = {"f8": "DoubleStorage", "f4": "FloatStorage", "i8": "LongStorage"}
"""PyTorch's class of storage by NumPy's code of the dtype."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member, so that equal weights make equal files."""


def write_state_dict(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of float32, float64 or int64 as a state dictionary.

    Several names of the same array object share its storage. A reader sees a whole file or none.

    Raises:
        UserError: an array is of another dtype.
    """
    for name, array in arrays.items():
        if array.dtype.str[1:] not in STORAGES:
            raise UserError(
                f"Array {name} is of {array.dtype}: convert it to float32, float64 or int64."
            )
    storages: dict[int, tuple[str, np.ndarray]] = {}
    for array in arrays.values():
        storages.setdefault(id(array), (str(len(storages)), array))
    head = b"\x80\x02" + _call("collections", "OrderedDict", b")") + b"("
    body = b"".join(_text(name) + _tensor(*storages[id(array)]) for name, array in arrays.items())
    _write(path, head + body + b"u.", dict(storages.values()))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one NumPy array as `torch.save` does, with its bytes in the pickle."""
    pickled = pickle.dumps(np.ascontiguousarray(array), protocol=2)
    # The releases run with NumPy 1, which has its modules under these names only.
    _write(path, pickled.replace(b"cnumpy._core.", b"cnumpy.core.", 1), {})


def _write(path: Path, pickled: bytes, storages: Mapping[str, np.ndarray]) -> None:
    folder = path.stem or "archive"
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}", EPOCH), data)

        add("data.pkl", pickled)
        add("byteorder", b"little")
        for key, array in storages.items():
            order = array.dtype.newbyteorder("<")
            add(f"data/{key}", np.ascontiguousarray(array).astype(order, copy=False).tobytes())
        add("version", b"3\n")


def _text(text: str) -> bytes:
    data = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    if 0 <= value < 2**31:
        return pickle.BININT + struct.pack("<i", value)
    data = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(data)]) + data


def _numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _call(module: str, name: str, arguments: bytes) -> bytes:
    return _name(module, name) + arguments + b"R"


def _tensor(key: str, array: np.ndarray) -> bytes:
    """Return the opcodes of a contiguous tensor whose storage is the member data/KEY."""
    kind = _name("torch", STORAGES[array.dtype.str[1:]])
    storage = b"(" + _text("storage") + kind + _text(key) + _text("cpu") + _number(array.size)
    strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
    no_hooks = _call("collections", "OrderedDict", b")")
    view = _number(0) + _numbers(array.shape) + _numbers(strides) + b"\x89" + no_hooks
    return _call("torch._utils", "_rebuild_tensor_v2", b"(" + storage + b"tQ" + view + b"t")
