"""A machine for pickles that knows no way to import or to call what they name."""

import io
import os
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsar_jax.untrusted import pickles
from tsar_jax.untrusted.pickles import Global, Instance, described, load

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def read(data, **options):
    return load(io.BytesIO(data), {}, **options)


@given(PLAIN, st.integers(3, 5))
def test_plain_data_are_read_as_by_pickle(value, protocol) -> None:
    assert read(pickle.dumps(value, protocol)) == value


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, eval, getattr])
def test_a_call_is_refused(protocol, function) -> None:
    data = pickle.dumps([Calls(function, "1")], protocol)
    with pytest.raises(pickle.UnpicklingError, match=rf"asks to call .*\.{function.__name__}"):
        read(data)


def test_an_object_of_an_unknown_class_keeps_what_it_is_given() -> None:
    found = read(b"\x80\x02cno.such\nModule\n)\x81}X\x01\x00\x00\x00aK\x01sb.")
    assert isinstance(found, Instance)
    assert found.kind == Global("no.such", "Module")
    assert found.state == {"a": 1}
    with pytest.raises(pickle.UnpicklingError, match="which no array needs"):
        read(b"\x80\x02cno.such\nModule\n.", objects=False)


def nested(depth):
    return b"\x80\x02)" + b"\x85" * depth


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(cos\nsystem\nS'x'\no.", "OBJ"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x02]}b.", "gives a state"),
        (b"\x80\x02K\x01K\x02a.", "no list"),
        (b"\x80\x02]K\x01K\x01s.", "no dictionary"),
        (b"\x80\x02K\x01K\x01\x81.", "no class"),
        (b"\x80\x02K\x01)R.", "no function"),
        (b"\x80\x02N.extra"[:3], "ValueError"),
        (b"\x80\x02e.", "did not open"),
        (b"\x80\x02\x86.", "did not put"),
        (b"\x80\x02Vx\n\x51.", "outside"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "numbers an object"),
        (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.", "ValueError"),
        (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.", "ValueError"),
        (b"\x80\x02\x8b\xff\xff\xff\x7fx.", "ValueError"),
        (b"", "ValueError"),
    ],
)
def test_what_would_do_harm_is_refused(data, reason) -> None:
    with pytest.raises(pickle.UnpicklingError, match=reason):
        read(data)


@pytest.mark.parametrize("key", [b"\x8a\x09" + bytes(8) + b"\x01", nested(400)[2:]])
def test_what_cannot_be_a_key_is_left_out_and_refused_in_plain_data(key) -> None:
    data = b"\x80\x02}(K\x01K\x02" + key + b"Nu."
    assert read(data) == {1: 2}
    with pytest.raises(pickle.UnpicklingError, match="key of a dictionary"):
        read(data, objects=False)


@pytest.mark.parametrize(
    "deep",
    [
        nested(1_000_000),
        b"]" * 502 + b"a" * 501,
        b"(" * 502 + b"d" + b"t" * 501,
        b"]q\x010h\x01" + b"\x85" * 501,
    ],
)
def test_deep_data_are_refused_before_they_are_built(deep) -> None:
    with pytest.raises(pickle.UnpicklingError, match="more than 500 deep"):
        read(deep + b".")


def test_what_is_as_deep_as_allowed_is_read_and_may_hold_itself() -> None:
    assert isinstance(read(nested(400) + b"."), tuple)
    found = read(b"\x80\x02]q\x01h\x01a.")
    assert found[0] is found
    assert read(b"\x80\x02K\x01(0.") == 1


def test_nothing_is_built_of_a_pickle_with_too_many_steps(monkeypatch) -> None:
    monkeypatch.setattr(pickles, "MAX_STEPS", 100)
    built = []
    monkeypatch.setattr(pickles._Machine, "_constant", lambda machine, value: built.append(value))
    with pytest.raises(pickle.UnpicklingError, match="more than 100 steps"):
        read(b"\x80\x02" + b"}" * 4_000_000 + b".")
    assert not built


SHARED = b"\x80\x02]" + b"q\x000(h\x00h\x00l" * 60  # lists that hold the one before twice
HUGE = b"\x80\x02\x8b" + struct.pack("<i", 3000) + b"\x01" * 3000  # of some 7,000 digits


@pytest.mark.parametrize("made", [SHARED, HUGE, nested(400), b"\x80\x02X\x05\x00\x00\x00\x1b[31m"])
def test_what_a_pickle_holds_is_shown_shortened_and_escaped(made) -> None:
    said = described(read(made + b"."))
    assert len(said) < 2000
    assert said.isprintable()
    with pytest.raises(pickle.UnpicklingError) as raised:
        read(b"\x80\x02}(" + made[2:] + b"cno.such\nF\x1b[2J\n" + b")Ru.")
    assert len(str(raised.value)) < 2000
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("key", [SHARED[2:], HUGE[2:], nested(400)[2:]])
def test_no_key_ends_the_reader(key) -> None:
    data = b"\x80\x02}(" + key + b"Nu."
    assert read(data) == {}
    with pytest.raises(pickle.UnpicklingError, match="key of a dictionary") as raised:
        read(data, objects=False)
    assert len(str(raised.value)) < 2000


def test_a_pickle_of_too_many_steps_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(pickles, "MAX_STEPS", 100)
    with pytest.raises(pickle.UnpicklingError, match="more than 100 steps"):
        read(b"\x80\x02" + b"}0" * 60 + b"N.")


@pytest.mark.parametrize("number", [b"J%b", b"G%b"])
def test_keys_that_could_be_slow_to_find_are_few(number) -> None:
    """Numbers can be chosen so that a dictionary tries each of them before the next."""
    pack = (lambda key: struct.pack("<i", key)) if number[:1] == b"J" else struct.Struct(">d").pack
    items = b"".join(number % pack(key) + b"N" for key in range(20_001))
    assert len(read(b"\x80\x02}(" + items[: 20_000 * (len(items) // 20_001)] + b"u.")) == 20_000
    with pytest.raises(pickle.UnpicklingError, match="more than 20000 keys"):
        read(b"\x80\x02}(" + items + b"u.")
    again = items[: len(items) // 20_001] * 20_001
    with pytest.raises(pickle.UnpicklingError, match="more than 20000 keys"):
        read(b"\x80\x02}(" + again + b"u.")


def test_the_stream_stands_behind_the_pickle() -> None:
    stream = io.BytesIO(pickle.dumps(1, 2) + pickle.dumps([2], 2) + b"rest")
    assert load(stream, {}) == 1
    assert load(stream, {}) == [2]
    assert stream.read() == b"rest"
