"""Stand-ins for objects of PyTorch and NumPy while a file is read: shapes, but no behaviour."""

import dataclasses
import math
import pickle
import re
from typing import Any

import numpy as np

from tsar_jax.untrusted.pickles import Calls, Global, Instance, described

BFLOAT16 = "bfloat16"
MAX_AXES = 32
"""Largest number of an array's axes, as in NumPy 1."""
MAX_KEY = 100
"""Largest number of characters of a storage's name."""
STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
    "UntypedStorage": "u1",
}
DTYPES = {
    **{"float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": BFLOAT16},
    **{"double": "f8", "float": "f4", "half": "f2"},
    **{"int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "bool": "b1"},
    **{"uint16": "u2", "uint32": "u4", "uint64": "u8"},
}
TORCH = ("torch", "torch.cuda", "torch.storage")
BEYOND = "it has a tensor that reaches beyond its storage"


class Element(str):
    """The code of a dtype, such as f4; bfloat16 has none in NumPy."""

    @property
    def itemsize(self) -> int:
        return 2 if self == BFLOAT16 else np.dtype(str(self)).itemsize


def dtype_of_storage(kind: Any) -> Element:
    """Return the dtype of a storage's elements from its class `kind`, of any device."""
    if not isinstance(kind, Global) or kind.module not in TORCH or kind.name not in STORAGES:
        raise pickle.UnpicklingError(f"it has a storage of unknown numbers ({described(kind)})")
    return Element(STORAGES[kind.name])


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise pickle.UnpicklingError("it has a size that is no number of elements")
    return value


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > MAX_AXES:
        raise pickle.UnpicklingError("it has a shape that is no row of numbers")
    return tuple(map(_count, values))


def _shape(values: Any) -> tuple[int, ...]:
    """Return a shape that NumPy accepts: it refuses huge axes even of arrays without elements."""
    shape = _counts(values)
    if 0 in shape and math.prod(max(length, 1) for length in shape) >= 2**31:
        raise pickle.UnpicklingError("it has an array of no elements and a huge axis")
    return shape


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers in a file that are not read yet.

    dtype: of its elements. key: its name. count: number of elements. offset: first element of the
        view that is meant.
    """

    dtype: Element
    key: str
    count: int
    offset: int = 0

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    @classmethod
    def declared(cls, kind: Any, key: Any, place: Any, count: Any, view: Any = None) -> "Storage":
        """Return the storage that a file describes.

        Args:
            kind: class of the storage.
            key: its name.
            place: its device, which is ignored.
            count: number of its elements.
            view: (key, offset, size) of the part of the storage that is meant; None: all of it.
        """
        if not isinstance(key, str) or len(key) > MAX_KEY:
            raise pickle.UnpicklingError("it has a storage without a name")
        offset = 0
        if view is not None:
            if not isinstance(view, tuple) or len(view) != 3:
                raise pickle.UnpicklingError("it has an unknown view of a storage")
            offset = _count(view[1])
        return cls(dtype_of_storage(kind), key, _count(count), offset)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage. strides, offset: in elements of `dtype`."""

    storage: Storage
    dtype: Element
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def last(self) -> int:
        """Return the position of the last element, if there is any, in elements of the storage."""
        steps = zip(self.shape, self.strides, strict=True)
        return self.offset + sum((length - 1) * stride for length, stride in steps)

    def read(self, data: np.ndarray, order: str) -> np.ndarray:
        """Return the tensor as an array; bfloat16 becomes float32.

        Args:
            data: the storage's bytes, uint8 [n].
            order: byte order, "<" or ">".

        Raises:
            pickle.UnpicklingError: the tensor reaches beyond its storage.
        """
        if self.dtype == BFLOAT16:
            # bfloat16 is the upper half of a float32.
            halves = self._view(data.view(np.dtype(f"{order}u2"))).astype(np.uint32)
            return (halves << 16).view(np.float32)
        array = self._view(data.view(np.dtype(f"{order}{self.dtype}")))
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _view(self, flat: np.ndarray) -> np.ndarray:
        if not math.prod(self.shape):
            return np.zeros(self.shape, flat.dtype)
        # Checked here again, for as_strided would read memory beyond the storage.
        if self.last >= flat.size:
            raise pickle.UnpicklingError(BEYOND)
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :],
            self.shape,
            # The stride of an axis of one element means nothing, and may be any number.
            [
                stride * flat.itemsize if length > 1 else 0
                for length, stride in zip(self.shape, self.strides, strict=True)
            ],
            writeable=False,
        )


def make_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: Element | None = None
) -> Tensor:
    """Return a tensor that lies within its storage.

    Args:
        storage: its `Storage`.
        offset: first element in the storage.
        shape: lengths of its axes.
        strides: strides of its axes, in elements.
        dtype: dtype of the elements where the storage is one of bytes.

    Raises:
        pickle.UnpicklingError: an argument is malformed, or the tensor reaches beyond its storage
            or has more elements than it.
    """
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("it has a tensor without a storage")
    dtype = dtype or storage.dtype
    shape, strides = _shape(shape), _counts(strides)
    offset = _count(offset) + storage.offset
    if len(shape) != len(strides):
        raise pickle.UnpicklingError("it has a tensor of another number of strides than axes")
    # Untyped storages count bytes, so the capacity is computed in elements of the tensor.
    capacity = storage.nbytes // dtype.itemsize
    tensor = Tensor(storage, dtype, offset, shape, strides)
    elements = math.prod(shape)
    if elements > capacity or (elements and tensor.last >= capacity) or offset > capacity:
        raise pickle.UnpicklingError(BEYOND)
    if storage.nbytes % dtype.itemsize:
        raise pickle.UnpicklingError("it has a storage of another size than its elements")
    return tensor


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    return make_tensor(storage, offset, shape, strides)


def _rebuild_typed(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    if not isinstance(dtype, Global) or dtype.module != "torch" or dtype.name not in DTYPES:
        raise pickle.UnpicklingError(f"it has a tensor of unknown numbers ({described(dtype)})")
    return make_tensor(storage, offset, shape, strides, Element(DTYPES[dtype.name]))


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    rebuilders = {name for name in CALLS if name[0] == "torch._utils"}
    if not isinstance(function, Global) or function not in rebuilders:
        raise pickle.UnpicklingError(
            f"it asks to call {described(function)}, which no weights need"
        )
    if not isinstance(arguments, tuple):
        raise pickle.UnpicklingError("it calls with what are no arguments")
    return CALLS[function](*arguments)


class NumpyDtype:
    """A stand-in for a dtype of numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not re.fullmatch(r"[fiu][1248]|b1", code) or code == "f1":
            raise pickle.UnpicklingError(f"it has an array of {described(code)}, not of numbers")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Set the byte order, the second entry of a dtype's state."""
        order: Any = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("it has an array of an unknown byte order")
        self.dtype = self.dtype.newbyteorder(order)


class NumpyArray:
    """A stand-in for an array whose bytes lie in the pickle."""

    array: np.ndarray = np.zeros(0)

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def build(self, state: Any) -> None:
        """Set shape, dtype, order and bytes from an array's state."""
        _, shape, dtype, fortran, data = state
        self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> None:
        """Set the array from its bytes. Raises pickle.UnpicklingError where their number is wrong.

        data: the bytes. dtype: a `NumpyDtype`. shape: lengths of the axes. order: "C" or "F".
        """
        if not isinstance(dtype, NumpyDtype) or not isinstance(data, bytes | bytearray):
            raise pickle.UnpicklingError("it has an array that is not of numbers")
        shape = _shape(shape)
        if math.prod(shape) * dtype.dtype.itemsize != len(data) or order not in ("C", "F"):
            raise pickle.UnpicklingError("it has an array of another size than its bytes")
        flat = np.frombuffer(data, dtype.dtype)
        native = dtype.dtype.newbyteorder("=")
        self.array = flat.reshape(shape, order=order).astype(native, copy=False)


def _numpy_from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> NumpyArray:
    array = NumpyArray()
    array.fill(data, dtype, shape, order)
    return array


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    return _numpy_from_buffer(data, dtype, (), "C").array.item()


def _encode(text: Any, encoding: Any) -> bytes:
    """Return latin1 text as bytes, as Python 3 writes bytes for Python 2.

    Any other encoding is refused, for Python could import a module for it.
    """
    if encoding != "latin1" or not isinstance(text, str):
        raise pickle.UnpicklingError(f"it asks for the encoding {described(encoding)}")
    return text.encode("latin1")


def _inert(module: str, name: str) -> Any:
    return lambda *_: Instance(Global(module, name))


def _mapping(pairs: Any = ()) -> dict[Any, Any]:
    """Return an OrderedDict's items as a dict; old pickles have them as a list of pairs."""
    if not isinstance(pairs, list | tuple):
        raise pickle.UnpicklingError("it has a dictionary of what are no pairs")
    mapping = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise pickle.UnpicklingError("it has a dictionary with a key that is no text")
        mapping[key] = value
    return mapping


CALLS: Calls = {
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch", "Size"): lambda sizes=(): sizes,
    ("torch", "device"): _inert("torch", "device"),
    ("collections", "OrderedDict"): _mapping,
    ("collections", "defaultdict"): lambda *_: {},
    ("collections", "Counter"): lambda *_: {},
    ("functools", "partial"): _inert("functools", "partial"),
    **{
        (module, name): _inert(module, name)
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",
    ("numpy", "dtype"): NumpyDtype,
    # Sets hold no weights, and building them would hash their members; they stay empty.
    **{
        (module, name): lambda *_: []
        for module in ("__builtin__", "builtins")
        for name in ("set", "frozenset")
    },
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: NumpyArray()
        for core in ("core", "_core")
    },
    **{(f"numpy.{core}.multiarray", "scalar"): _numpy_scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _numpy_from_buffer for core in ("core", "_core")},
}
"""Functions for the calls in a file of weights; any other call is refused."""
