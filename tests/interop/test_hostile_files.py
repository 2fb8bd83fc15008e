"""Files of torch.save made to do harm: to crash the reader, or to take its memory or its time."""

import pickle
import struct
import zipfile

import numpy as np
import pytest
from torch_pickles import tensor, zipped

from tsar_jax.errors import UserError
from tsar_jax.interop import torch_writer as writer
from tsar_jax.interop.stand_ins import Storage, dtype_of_storage, make_tensor
from tsar_jax.interop.torch_files import MAGIC, read_arrays
from tsar_jax.untrusted.pickles import Global


def looped_module() -> bytes:
    """A module that is its own submodule."""
    state = b"}" + writer._text("_modules") + b"}" + writer._text("m") + b"h\x00ss"
    return b"\x80\x02" + writer._name("a", "B") + b")\x81q\x00" + state + b"b."


def branching_module() -> bytes:
    """Modules that each are twice in the next: 2**40 of them to walk."""
    made = b"\x80\x02"
    for level in range(40):
        inner = b"h" + bytes([level - 1]) if level else b"N"
        parts = b"}(" + b"".join(writer._text(name) + inner for name in "ab") + b"u"
        made += writer._name("a", "B") + b")\x81q" + bytes([level])
        made += b"}" + writer._text("_modules") + parts + b"sb0"
    return made + b"h\x27."


@pytest.mark.parametrize("made", [looped_module, branching_module])
def test_modules_without_an_end_are_refused(tmp_path, made) -> None:
    (tmp_path / "file").write_bytes(made())
    with pytest.raises(UserError, match="have no end"):
        read_arrays(tmp_path / "file")


def tensors(*claims) -> bytes:
    """A pickle of a list of tensors."""
    return b"\x80\x02(" + b"".join(tensor(**claim)[2:-1] for claim in claims) + b"l."


def legacy(pickled: bytes, *storages: bytes) -> bytes:
    """A file in the older format, its storages of four-byte numbers."""
    head = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True}))
    keys = pickle.dumps([str(index) for index in range(len(storages))], 2)
    counted = (struct.pack("<q", len(data) // 4) + data for data in storages)
    return head + pickled + keys + b"".join(counted)


@pytest.mark.parametrize("other", [{"count": 10**6}, {"kind": "IntStorage"}, {"count": 5}], ids=str)
def test_a_storage_described_in_two_ways_is_refused(tmp_path, other) -> None:
    """Of two descriptions only one could be compared with the storage itself."""
    end = {"shape": (1,), "offset": other.get("count", 6) - 1}
    for both in (({}, {**other, **end}), ({**other, **end}, {})):
        path = zipped(tmp_path / "a.pt", tensors(*both), [bytes(24)])
        with pytest.raises(UserError, match="storage 0 in two ways"):
            read_arrays(path)
        path.write_bytes(legacy(tensors(*both), bytes(24)))
        with pytest.raises(UserError, match="storage 0 in two ways"):
            read_arrays(path)
    path.write_bytes(legacy(tensors({}, {}), bytes(24)))
    assert len(read_arrays(path).arrays) == 2


@pytest.mark.parametrize("kind", ["FloatStorage", "BFloat16Storage"])
def test_a_tensor_reads_no_memory_but_its_storage(kind) -> None:
    element = dtype_of_storage(Global("torch", kind))
    found = make_tensor(Storage(element, "0", 100), 0, (2,), (99,))
    with pytest.raises(pickle.UnpicklingError, match="beyond its storage"):
        found.read(np.zeros(99 * element.itemsize, np.uint8), "<")


def doubled(levels: int = 40) -> bytes:
    """A tuple of a tuple twice, and so on: short to write, 2**levels names long to print."""
    return b"N" + b"2\x86" * levels


TEXT, NAME = writer._text, writer._name


@pytest.mark.parametrize(
    "pickled",
    [
        b"(" + TEXT("storage") + doubled() + TEXT("0") + TEXT("cpu") + b"K\x01tQ.",
        NAME("torch._utils", "_rebuild_tensor_v3") + b"(NNNNNN" + doubled() + b"tR.",
        NAME("torch._tensor", "_rebuild_from_type_v2") + b"(" + doubled() + b"NNNtR.",
        NAME("numpy", "dtype") + b"(" + doubled() + b"tR.",
        NAME("_codecs", "encode") + b"(" + TEXT("x") + doubled() + b"tR.",
    ],
)
def test_what_is_refused_is_not_printed_whole(tmp_path, pickled) -> None:
    (tmp_path / "a").write_bytes(b"\x80\x02" + pickled)
    with pytest.raises(UserError, match="a tuple"):
        read_arrays(tmp_path / "a")


HUGE = {
    "encode": (NAME("_codecs", "encode"), TEXT("a" * 10**5) + TEXT("latin1") + b"\x86"),
    "set": (NAME("builtins", "set"), b"](" + b"N" * 10**5 + b"e\x85"),
    "device": (NAME("torch", "device"), b"(" + b"N" * 10**5 + b"t"),
    "array": (
        NAME("numpy.core.numeric", "_frombuffer"),
        b"(B"
        + struct.pack("<I", 10**5)
        + bytes(10**5)
        + (NAME("numpy", "dtype") + TEXT("u1") + b"\x85R" + b"J\xa0\x86\x01\x00\x85")
        + TEXT("C")
        + b"t",
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_calls_that_share_an_argument_do_not_multiply_it(tmp_path, name) -> None:
    function, arguments = HUGE[name]
    memoised = b"\x80\x02" + function + b"q\x000" + arguments + b"q\x010"
    (tmp_path / "a").write_bytes(memoised + b"(" + b"h\x00h\x01R" * 1000 + b"l.")
    with pytest.raises(UserError, match="same objects to too many calls"):
        read_arrays(tmp_path / "a")


def test_states_that_are_shared_are_counted(tmp_path) -> None:
    state = b"(" + b"N" * 10**5 + b"tq\x010"
    objects = (NAME("a", "B") + b")\x81h\x01b") * 1000
    (tmp_path / "a").write_bytes(b"\x80\x02" + state + b"(" + objects + b"l.")
    with pytest.raises(UserError, match="same objects to too many calls"):
        read_arrays(tmp_path / "a")


def test_modules_are_not_walked_forever(tmp_path) -> None:
    """A dictionary of many entries, none of them an array, in a module that occurs many times."""
    many = b"}q\x00(" + b"".join(TEXT(f"p{index}") + b"N" for index in range(1000)) + b"u0"
    inner = NAME("a", "B") + b")\x81}" + TEXT("_parameters") + b"h\x00sbq\x010"
    modules = b"}(" + b"".join(TEXT(f"m{index}") + b"h\x01" for index in range(200)) + b"u"
    outer = NAME("a", "B") + b")\x81}" + TEXT("_modules") + modules + b"sb."
    (tmp_path / "a").write_bytes(b"\x80\x02" + many + inner + outer)
    with pytest.raises(UserError, match="have no end"):
        read_arrays(tmp_path / "a")


def test_names_that_are_no_text_are_left_out(tmp_path) -> None:
    parameters = b"}(" + TEXT("w") + tensor()[2:-1] + b"K\x01" + tensor()[2:-1] + b"u"
    module = NAME("a", "B") + b")\x81}" + TEXT("_parameters") + parameters + b"sb."
    path = zipped(tmp_path / "a.pt", b"\x80\x02" + module, [bytes(24)])
    assert list(read_arrays(path).arrays) == ["w"]


@pytest.mark.parametrize("shape", [(0, 2**30, 2**30, 2**30), (2**31 - 1, 0, 2)], ids=str)
def test_an_empty_tensor_of_huge_axes_is_refused(tmp_path, shape) -> None:
    pickled = tensor(shape=shape, strides=(1,) * len(shape))
    with pytest.raises(UserError, match="no elements and a huge axis"):
        read_arrays(zipped(tmp_path / "a.pt", pickled, [bytes(24)]))


def test_a_member_without_a_name_is_refused(tmp_path) -> None:
    path = zipped(tmp_path / "a.pt", tensor(), [bytes(24)])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(""), b"")
    with pytest.raises(UserError, match="it has no name"):
        read_arrays(path)
