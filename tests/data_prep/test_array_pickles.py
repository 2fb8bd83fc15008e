"""Pickles of byte arrays: what they hold, and that nothing they ask for is run."""

import builtins
import contextlib
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small_cifar100 import python2_pickle

from data_prep import cifar
from data_prep.array_pickles import load_arrays
from tsar_jax.errors import UserError

BYTES = arrays.arrays(np.uint8, arrays.array_shapes(max_dims=3, max_side=4))
PLAIN = st.recursive(
    st.integers() | st.binary(max_size=9), lambda inner: st.lists(inner, max_size=4)
)


def assert_equal(found: dict[bytes, Any], expected: dict[bytes, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype == np.uint8
            np.testing.assert_array_equal(found[key], value, strict=True)
        else:
            assert found[key] == value


CONTENTS = st.dictionaries(st.binary(min_size=1, max_size=4), BYTES | PLAIN, max_size=4)


@given(CONTENTS)
def test_what_python_2_wrote_is_read_with_strings_as_bytes(content: dict[bytes, Any]) -> None:
    assert_equal(load_arrays(python2_pickle(content)), content)


@given(CONTENTS, st.sampled_from([3, 4]))
def test_what_python_3_wrote_is_read(content: dict[bytes, Any], protocol: int) -> None:
    assert_equal(load_arrays(pickle.dumps(content, protocol)), content)


def test_bytes_that_python_3_wrote_for_python_2_are_read() -> None:
    content = {b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"names": [b"\xff", b"a"]}
    data = pickle.dumps(content, 2)
    assert b"_codecs" in data
    assert_equal(load_arrays(data), content)


def test_empty_bytes_that_python_3_wrote_for_python_2_are_read_and_no_others_made() -> None:
    content = {b"data": np.arange(3, dtype=np.uint8), b"label": b""}
    data = pickle.dumps(content, 2)
    assert b"__builtin__\nbytes" in data
    assert_equal(load_arrays(data), content)
    with pytest.raises(pickle.UnpicklingError, match="takes 0 positional arguments"):
        load_arrays(b"c__builtin__\nbytes\n(I1000000000000\ntR.")


def test_an_array_in_fortran_order_is_read() -> None:
    content = {b"data": np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4))}
    assert_equal(load_arrays(python2_pickle(content)), content)


class Calls:
    """Pickled, it asks for a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("function", [os.system, builtins.eval, builtins.exec])
def test_a_hostile_pickle_is_refused_and_not_run(
    tmp_path: Path, function: Any, protocol: int
) -> None:
    trace = tmp_path / "trace"
    command = f"echo > {trace}" if function is os.system else f"open({str(trace)!r}, 'w')"
    data = pickle.dumps({b"data": Calls(function, command)}, protocol)
    pickle.loads(data)
    assert trace.exists()  # it does run where nothing prevents it
    trace.unlink()
    with pytest.raises(pickle.UnpicklingError, match=rf"asks for .*\.{function.__name__}"):
        load_arrays(data)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "getattr"),
        ("__builtin__", "eval"),
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "memmap"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core.multiarray", "fromfile"),
        ("_codecs", "decode"),
        ("data_prep.array_pickles", "load_arrays"),
    ],
)
def test_any_other_name_is_refused(module: str, name: str) -> None:
    stack_global = b"\x80\x04" + pickle.SHORT_BINUNICODE + bytes([len(module)]) + module.encode()
    stack_global += pickle.SHORT_BINUNICODE + bytes([len(name)]) + name.encode() + b"\x93."
    for data in (f"c{module}\n{name}\n.".encode(), stack_global):
        with pytest.raises(pickle.UnpicklingError, match="which no array needs"):
            load_arrays(data)


def test_an_encoding_that_would_be_looked_up_is_refused() -> None:
    data = b"c_codecs\nencode\n(Vtext\nVutf-7\ntR."
    assert pickle.loads(data)  # it is looked up where nothing prevents it
    with pytest.raises(pickle.UnpicklingError, match="'utf-7'"):
        load_arrays(data)


@pytest.mark.parametrize(
    "called", [b"cnumpy\ndtype\n(%bI0\nI1\ntR.", b"c_codecs\nencode\n(Vx\n%btR."]
)
def test_what_is_refused_is_not_printed_whole(called: bytes) -> None:
    doubled = b"N" + b"2\x86" * 40  # a tuple of a tuple twice, and so on
    with pytest.raises(pickle.UnpicklingError, match="a tuple"):
        load_arrays(b"\x80\x02" + called % doubled)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.bool_, object, "S3", "u1,u1"])
def test_an_array_of_anything_but_bytes_is_refused(dtype: Any) -> None:
    content = {b"data": np.zeros(3, dtype)}
    for data in (python2_pickle(content), pickle.dumps(content, 4)):
        with pytest.raises(pickle.UnpicklingError):
            load_arrays(data)


def test_an_array_that_claims_more_than_it_has_is_refused() -> None:
    data = python2_pickle({b"data": np.arange(7, dtype=np.uint8)})
    larger = data.replace(b"K\x07", b"K\x08")
    assert larger != data
    with pytest.raises(pickle.UnpicklingError, match="reshape"):
        load_arrays(larger)


@pytest.mark.parametrize("put", [b"p10000000\n", b"r" + (10**7).to_bytes(4, "little")])
def test_a_number_that_would_fill_the_memory_is_refused(put: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match="numbers an object 10000000"):
        load_arrays(b"]" + put + b".")


WHOLE = python2_pickle({b"data": np.arange(20, dtype=np.uint8), b"labels": [1, 2]})


@given(st.integers(0, len(WHOLE) - 1))
def test_a_truncated_pickle_is_refused(length: int) -> None:
    with pytest.raises(pickle.UnpicklingError):
        load_arrays(WHOLE[:length])


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_damaged_pickle_is_read_or_refused(position: int, value: int) -> None:
    data = bytearray(WHOLE)
    data[position] = value
    with contextlib.suppress(pickle.UnpicklingError):
        load_arrays(bytes(data))


def shared_lists() -> list:
    """Lists within each other, each of which holds the next one many times."""
    held: list = ["x"]
    for _ in range(60):
        held = [held] * 9
    return held


@pytest.mark.parametrize(
    "name", [shared_lists(), 10**5000, b"\x1b[31m" * 1000], ids=["shared", "huge", "raw"]
)
def test_what_is_no_name_of_a_class_is_shown_shortened_and_escaped(name, monkeypatch) -> None:
    archive = object.__new__(cifar.Archive)
    refused = lambda member, reason: UserError(f"{member}: {reason}")  # noqa: E731
    archive.source = SimpleNamespace(refused=refused)
    archive.folder = ""
    monkeypatch.setattr(archive, "unpickle", lambda _: {b"names": [name]}, raising=False)
    with pytest.raises(UserError, match="is not a name of a class") as raised:
        archive.names("meta", b"names", 1)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 2000
