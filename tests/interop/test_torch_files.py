"""Files of torch.save, read without PyTorch: what they hold, and that nothing they ask for runs."""

import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_pickles import tensor, zipped

from tsar_jax.errors import UserError
from tsar_jax.interop import torch_writer as writer
from tsar_jax.interop.naming import in_order, without_prefix
from tsar_jax.interop.torch_files import MAGIC, read_arrays
from tsar_jax.interop.torch_writer import write_array, write_state_dict

TEXT, NAME = writer._text, writer._name
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


def test_what_cannot_be_written_leaves_no_file(tmp_path) -> None:
    with pytest.raises(UserError, match="Array half is of float16"):
        write_state_dict(tmp_path / "a.pt", {"half": np.zeros(3, np.float16)})
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_written_through_a_link_beside_it(tmp_path) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / "a.pt.tmp").symlink_to(tmp_path / "other")
    write_state_dict(tmp_path / "a.pt", {"w": np.zeros(3)})
    assert (tmp_path / "other").read_text() == "kept"
    assert not (tmp_path / "a.pt").is_symlink()
    assert len(list(tmp_path.iterdir())) == 3


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


def test_a_checkpoint_is_its_network_whatever_else_it_holds(tmp_path) -> None:
    one = tensor()[2:-1]
    inner = b"}" + TEXT("w") + one + b"s"
    pickled = b"\x80\x02}(" + TEXT("loss") + one + TEXT("state_dict") + inner + b"u."
    assert list(read_arrays(zipped(tmp_path / "a", pickled, [bytes(24)])).arrays) == ["w"]
    pickled = b"\x80\x02}(" + TEXT("net") + one + TEXT("model") + b"}u."
    assert list(read_arrays(zipped(tmp_path / "a", pickled, [bytes(24)])).arrays) == ["net"]


def test_optimisers_and_paths_among_attributes_do_no_harm(tmp_path) -> None:
    one = tensor()[2:-1]
    state = NAME("collections", "defaultdict") + NAME("builtins", "dict") + b"\x85R"
    optimiser = NAME("torch.optim", "Adam") + b")\x81}" + TEXT("state")
    optimiser += state + one + b"}ss" + b"b"
    place = NAME("pathlib", "PosixPath") + TEXT("a") + TEXT("b") + b"\x86R"
    parts = TEXT("_parameters") + b"}" + TEXT("w") + one + b"s"
    module = NAME("a", "B") + b")\x81}(" + parts
    module += TEXT("optimiser") + optimiser + TEXT("place") + place + b"ub."
    path = zipped(tmp_path / "a", b"\x80\x02" + module, [bytes(24)])
    assert list(read_arrays(path).arrays) == ["w"]


def test_a_network_is_found_by_its_shortest_name() -> None:
    order = ("m._features.2.0.conv1.weight", "m.layer1.0.conv1.weight", "m.conv1.weight", "x")
    named = without_prefix({name: np.array(name) for name in order}, "conv1.weight")
    assert named["conv1.weight"] == "m.conv1.weight"
    assert "x" not in named
    assert list(without_prefix({"myconv1.weight": np.ones(1)}, "conv1.weight")) == [
        "myconv1.weight"
    ]


def test_lists_of_two_networks_are_not_merged() -> None:
    arrays = {name: np.ones(1) for name in ("a.vars.1", "a.vars.0", "norm.running_mean")}
    assert list(in_order(arrays)) == ["a.vars.0", "a.vars.1"]
    with pytest.raises(UserError, match=r"such as a\.vars and b\.vars"):
        in_order(arrays | {"b.vars.2": np.ones(1)})
