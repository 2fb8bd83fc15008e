"""Pickles of lists, dictionaries and byte arrays, read without running any code that they name.

A pickle names functions to call, any that Python can import. Here it gets none of them, not even
NumPy's: the few names that such data need stand for the functions below, which build an array from
bytes and do nothing else.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from tsar_jax.untrusted.pickles import described, load


def load_arrays(data: bytes) -> Any:
    """Return the plain objects and uint8 arrays in a pickle; Python 2's strings become bytes.

    Raises:
        pickle.UnpicklingError: it needs anything else, or is damaged.
    """
    return _release(load(io.BytesIO(data), STAND_INS, objects=False, strings_as_bytes=True))


class _Array:
    """A stand-in for an array while its pickle is read."""

    pixels: np.ndarray

    def build(self, state: tuple[int, tuple[int, ...], "_Bytes", bool, bytes | bytearray]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Bytes) or not isinstance(data, bytes | bytearray):
            raise pickle.UnpicklingError("an array in it is not of bytes")
        self.pixels = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Bytes:
    """A stand-in for the dtype uint8, the only one that is accepted."""

    def __init__(self, code: str | bytes, align: bool, copy: bool) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array in it is of {described(code)}, not of bytes")

    def build(self, state: tuple[Any, ...]) -> None:
        """Ignore byte order and alignment, which single bytes do not have."""


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> _Array:
    return _Array()


def _from_buffer(
    data: bytes | bytearray, dtype: "_Bytes", shape: tuple[int, ...], order: str
) -> _Array:
    """Return the stand-in for an array as NumPy writes it since pickle protocol 5."""
    array = _Array()
    array.build((1, shape, dtype, order == "F", data))
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Return latin1 text as bytes, as Python 3 writes bytes for Python 2.

    Any other encoding is refused, for Python could import a module for it.
    """
    if encoding != "latin1" or not isinstance(text, str):
        raise pickle.UnpicklingError(f"it asks for the encoding {described(encoding)}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Return empty bytes, as Python 3 writes them for Python 2.

    There is no argument, for bytes(n) could fill the memory.
    """
    return b""


STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Bytes,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


def _release(value: Any) -> Any:
    """Return a value in which the stand-ins of a dictionary are replaced by their arrays."""
    if not isinstance(value, dict):
        return value
    return {key: item.pixels if isinstance(item, _Array) else item for key, item in value.items()}
