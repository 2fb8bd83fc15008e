"""What comes from outside is shortened and escaped before it is shown."""

import pytest

from tsar_jax.errors import escaped, shown
from tsar_jax.training.config import config_difference, config_from_json
from tsar_jax.training.loop import LoopConfig
from tsar_jax.untrusted.zips import refused


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2.5,
        1j,
        "text",
        b"bytes",
        [],
        (),
        {},
        [1, "a"],
        (1,),
        (1, 2),
        {"a": [1, None]},
    ],
)
def test_what_is_short_is_shown_as_python_writes_it(value) -> None:
    assert shown(value) == repr(value)


def deep(kind, levels):
    value = 1
    for _ in range(levels):
        value = {"a": value} if kind is dict else kind([value])
    return value


def shared():
    value = ["x"]
    for _ in range(60):
        value = [value] * 9
    return value


class Endless:
    def __repr__(self):
        raise AssertionError("shown")


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**7,
        b"x" * 10**7,
        10**5000,
        -(10**5000),
        deep(list, 100_000),
        deep(tuple, 100_000),
        deep(dict, 100_000),
        shared(),
        list(range(10**6)),
        {str(index): index for index in range(10**5)},
        Endless(),
        "\x1b[31m\x9b\u202e\udc80\n",
        {"\x1b[2J" * 100: "\x07"},
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_is_shown_whole_or_raw(value) -> None:
    said = shown(value)
    assert said.isprintable()
    assert len(said) < 2000


def test_a_text_is_cut_and_escaped() -> None:
    assert escaped("a\x1b" * 100, 10) == "a\\x1ba\\x1ba\\x1ba..."
    assert escaped("short", 10) == "short"


@pytest.mark.parametrize("value", ["\x1b[31m", "x" * 10_000, ["\x1b"] * 10**5, 10**39])
def test_configs_show_no_setting_raw_or_whole(value) -> None:
    from tsar_jax.systems.learned_rules.system import LearnedRuleConfig
    from tsar_jax.training.config import config_to_json

    stored = config_to_json(LearnedRuleConfig()) | {"terms": [value, *["a"] * 9]}
    with pytest.raises(Exception, match=r"config\.json") as raised:
        config_from_json(LearnedRuleConfig, stored)
    assert len(str(raised.value)) < 2000
    assert str(raised.value).isprintable()
    with pytest.raises(Exception, match="unknown field") as raised:
        config_from_json(LoopConfig, {"\x1b" * 500: 1} | config_to_json(LoopConfig()))
    assert len(str(raised.value)) < 2000
    said = config_difference({"a\x1b": value}, {"a\x1b": 1})
    assert said.isprintable()
    assert len(said) < 4000


def test_names_in_archives_are_cut_and_escaped() -> None:
    said = str(refused("a.zip", "\x1b[31m" * 10_000, "\x07" * 10_000))
    assert said.isprintable()
    assert len(said) < 3000
