"""Files of torch.save, read without PyTorch: what they hold, and that nothing they ask for runs."""

import hashlib
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsar_jax.errors import UserError
from tsar_jax.interop import torch_writer as writer
from tsar_jax.interop.stand_ins import Storage, dtype_of_storage, make_tensor
from tsar_jax.interop.torch_files import MAGIC, read_arrays
from tsar_jax.interop.torch_writer import write_array, write_state_dict
from tsar_jax.untrusted.pickles import Global

FILES = Path(__file__).parent / "release_files"
EXPECTED = json.loads((FILES / "expected.json").read_text())
TRACE = Path("/tmp/tsar_jax_was_here")
HEBBIAN = {"CartPole": "coefficients", "CNN": "cnn"}


def expected(name):
    """Of a file's arrays, in order: name, or None where only the order counts, and what it is."""
    for word, key in HEBBIAN.items():
        if word in name:
            return [(None, EXPECTED["hebbian"][key])]
    kind = next(kind for kind in EXPECTED if name.lower().startswith(kind))
    return [(key if "." in key else None, value) for key, value in EXPECTED[kind].items()]


def described(array):
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return [str(array.dtype), list(array.shape), digest]


WHOLE = sorted(p.name for p in FILES.iterdir() if p.suffix not in (".md", ".json", ".pth"))
WHOLE.append("anml-state-dict.pth")


@pytest.mark.parametrize("name", WHOLE)
def test_a_release_file_holds_what_was_saved(name) -> None:
    arrays = read_arrays(FILES / name).arrays
    wanted = expected(name)
    assert len(arrays) == len(wanted)
    for (found, array), (key, value) in zip(arrays.items(), wanted, strict=True):
        assert key in (None, found)
        assert described(array) == value


def test_a_whole_module_tells_its_attributes() -> None:
    attributes = read_arrays(FILES / "TSAR_Rich_Bias=-8.0_Seed=999").attributes
    assert attributes["bias"] == -8.0
    assert attributes["treatment"] == "TSAR"


@pytest.mark.parametrize("name", ["hostile-zip.pth", "hostile-legacy.pth"])
def test_a_hostile_file_is_refused_and_not_run(name) -> None:
    there = TRACE.exists()
    with pytest.raises(UserError, match=r"asks to call posix\.system"):
        read_arrays(FILES / name)
    assert TRACE.exists() == there


FUZZED = ("oml-legacy.net", "anml-zip.net", "HEBcoeffs__CarRacing__CNN_parameters.dat")


def read_or_refused(path: Path, data: bytes) -> bool:
    """Whether bytes are refused; anything but a UserError is raised."""
    path.write_bytes(data)
    try:
        read_arrays(path)
    except UserError:
        return True
    return False


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FUZZED), st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(scratch, name, part) -> None:
    data = (FILES / name).read_bytes()
    if name.startswith("HEB"):  # the list of its storages, empty, is all that follows the array
        data = data[:-8]
    assert read_or_refused(scratch, data[: int(part * len(data))])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FUZZED), st.data())
def test_a_damaged_file_is_read_or_refused(scratch, name, data) -> None:
    content = bytearray((FILES / name).read_bytes())
    # Most of a file is numbers; what they are wrapped in lies at its ends.
    end = st.integers(0, 5000) | st.integers(len(content) - 5000, len(content) - 1)
    for place in data.draw(st.lists(end, min_size=1, max_size=4)):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    read_or_refused(scratch, bytes(content))


def zipped(path: Path, pickled: bytes, storages=(), **members: bytes) -> Path:
    """A file in zip format of a pickle, storages and other members."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        for index, data in enumerate(storages):
            archive.writestr(f"a/data/{index}", data)
        for name, data in members.items():
            archive.writestr(f"a/{name}", data)
    return path


def tensor(kind="FloatStorage", count=6, offset=0, shape=(6,), strides=(1,), key="0") -> bytes:
    """A pickle of one tensor, which may claim anything."""
    text, name, number, numbers = writer._text, writer._name, writer._number, writer._numbers
    storage = b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu")
    storage += number(count) + b"tQ"
    view = number(offset) + numbers(shape) + numbers(strides) + b"\x89N"
    return b"\x80\x02" + name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + view + b"tR."


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *(("DoubleStorage", "f8"), ("FloatStorage", "f4"), ("HalfStorage", "f2")),
        *(("LongStorage", "i8"), ("IntStorage", "i4"), ("ByteStorage", "u1")),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_types_of_numbers_in_both_byte_orders(tmp_path, kind, code, order) -> None:
    values = np.arange(6).astype(code)
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    path = zipped(tmp_path / "a.pt", tensor(kind), [data], byteorder=order.encode())
    (found,) = read_arrays(path).arrays.values()
    np.testing.assert_array_equal(found, values, strict=True)


def test_bfloat16_becomes_float32(tmp_path) -> None:
    values = np.array([1, -2.5, 3, 0, 0.5, 384], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    path = zipped(tmp_path / "a.pt", tensor("BFloat16Storage"), [halves])
    np.testing.assert_array_equal(read_arrays(path).arrays["0"], values, strict=True)


def test_a_view_is_read_through_its_strides(tmp_path) -> None:
    data = np.arange(8, dtype=np.float32)
    path = zipped(
        tmp_path / "a.pt", tensor(count=8, offset=1, shape=(2, 3), strides=(1, 2)), [data]
    )
    np.testing.assert_array_equal(read_arrays(path).arrays["0"], [[1, 3, 5], [2, 4, 6]])


@pytest.mark.parametrize(
    "claims",
    [
        {"offset": 1},
        {"shape": (7,)},
        {"shape": (2, 3), "strides": (4, 1)},
        {"shape": (2, 3), "strides": (2**62 - 1, 1)},
        {"shape": (6,), "strides": (-1,)},
        {"shape": (-6,)},
        {"offset": -1},
        {"shape": (2**40,), "strides": (0,)},
        {"shape": (0, 2**40), "strides": (1, 1)},
        {"shape": (2, 3), "strides": (1,)},
        {"count": 7},
        {"count": 2**61, "shape": (2**61,)},
        {"kind": "ComplexFloatStorage"},
        {"key": "../0"},
    ],
    ids=str,
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, claims) -> None:
    data = np.arange(6, dtype=np.float32).tobytes()
    with pytest.raises(UserError, match="cannot be used"):
        read_arrays(zipped(tmp_path / "a.pt", tensor(**claims), [data]))


def test_arrays_many_times_as_large_as_the_file_are_refused(tmp_path) -> None:
    """A thousand views of one storage are cheap to write and would not be to read."""
    one = tensor(count=1000, shape=(1000,))[2:-1]
    path = zipped(tmp_path / "a.pt", b"\x80\x02](" + one * 1000 + b"e.", [bytes(4000)])
    with pytest.raises(UserError, match="larger than the file"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../b", "leads out"),
        ("c/x", "more than one folder"),
        ("data/0", "occurs twice"),
        ("b", "it is compressed"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_unsafe_archive_is_refused(tmp_path, name, reason) -> None:
    path = zipped(tmp_path / "a.pt", tensor(), [bytes(24)])
    with zipfile.ZipFile(path, "a") as archive:
        how = zipfile.ZIP_DEFLATED if name == "b" else zipfile.ZIP_STORED
        archive.writestr(f"a/{name}" if name in ("data/0", "b") else name, bytes(10), how)
    with pytest.raises(UserError, match=reason):
        read_arrays(path)


def test_what_is_no_file_of_weights_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        read_arrays(tmp_path / "none")
    with pytest.raises(UserError, match="is no regular file"):
        read_arrays(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is no regular file"):
        read_arrays(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(FILES / "oml-legacy.net")
    with pytest.raises(UserError, match="is a link"):
        read_arrays(tmp_path / "link")
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(UserError, match=r"no data\.pkl"):
        read_arrays(tmp_path / "a.npz")
    for content in (b"", b"text", b"PK\3\4", pickle.dumps({"a": 1}), pickle.dumps(MAGIC)):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(UserError):
            read_arrays(tmp_path / "file")


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


def test_what_is_written_is_read(tmp_path) -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(2, 3)).astype(np.float32)
    arrays = {
        "a.weight": shared,
        "b.weight": shared,
        "transposed": rng.normal(size=(2, 3)).T,
        "count": np.array(3),
        "none": np.zeros((0, 3), np.float32),
    }
    write_state_dict(tmp_path / "a.pt", arrays)
    found = read_arrays(tmp_path / "a.pt").arrays
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    write_array(tmp_path / "b.dat", shared)
    np.testing.assert_array_equal(read_arrays(tmp_path / "b.dat").arrays["0"], shared, strict=True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_pickled_alone_are_read(tmp_path, protocol) -> None:
    array = np.arange(6.0).reshape(2, 3)
    for held in (array, np.asfortranarray(array)):
        (tmp_path / "a").write_bytes(pickle.dumps([held, held[0]], protocol))
        found = read_arrays(tmp_path / "a").arrays
        np.testing.assert_array_equal(found["0"], array, strict=True)
        np.testing.assert_array_equal(found["1"], array[0], strict=True)


def test_pytorch_reads_what_is_written_and_is_read(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3)}
    write_state_dict(tmp_path / "a.pt", arrays)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name].numpy(), array, strict=True)
    write_array(tmp_path / "a.dat", arrays["a"])
    found = torch.load(tmp_path / "a.dat", weights_only=False)
    np.testing.assert_array_equal(found, arrays["a"], strict=True)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    strided = {"t": torch.arange(6.0).reshape(2, 3).T, "h": torch.ones(2, dtype=torch.bfloat16)}
    for zip_format in (True, False):
        for saved, wanted in ((net, state), (net.state_dict(), state), (strided, strided)):
            torch.save(saved, tmp_path / "b", _use_new_zipfile_serialization=zip_format)
            found = read_arrays(tmp_path / "b").arrays
            assert list(found) == list(wanted)
            for name, array in wanted.items():
                value = array.float().numpy() if saved is strided else array
                np.testing.assert_array_equal(found[name], value, strict=True)


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
